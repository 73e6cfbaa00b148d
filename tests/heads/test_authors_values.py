# SPDX-License-Identifier: Apache-2.0
"""Differences from the authors' code: our value, and theirs if an option selects it.

The figures of their code are what it returned in float64, run as it was released, for the same
embeddings and class centres.  docs/losses.md says which form is the default, and why.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest

from heads import build_head

SCALE = 8.0
FAR = ([[-12, 3, 4], [3, 4, 0]], [0, 1])
"""Embeddings and labels; the first is at 157 degrees from its centre, beyond pi - 0.5."""
MAGFACE = {"low": 1.0, "high": 5.0, "least": 0.4, "most": 0.8, "length_weight": 2.0}


pytestmark = pytest.mark.usefixtures("operators")


def step(name, embedding, label, weight=None, states=None, upstream=None, **settings):
    """Run one training step; return the loss per image and the gradients of its sum."""
    weight = np.eye(3) if weight is None else np.array(weight)
    settings = {"scale": SCALE, **settings}
    num_classes = len(weight) // settings.get("sub_centers", 1)
    head = build_head(name, num_classes, weight.shape[1], **settings)
    head.initialize()
    found = head._collect_params_with_prefix()
    for key, value in {"weight": weight, **(states or {})}.items():
        found[key].set_data(mx.nd.array(value))
    x = mx.nd.array(embedding)
    x.attach_grad()
    with mx.autograd.record():
        loss, _ = head(x, mx.nd.array(label))
    loss.backward(None if upstream is None else mx.nd.array(upstream))
    arrays = {"loss": loss, "x": x.grad, "weight": head.weight.grad()}
    return SimpleNamespace(**{key: array.asnumpy() for key, array in arrays.items()})


def near(found, expected, atol=1e-5):
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=atol)


def test_magface_has_a_margin_beyond_a_right_angle_unless_easy():
    embedding, label = [[-1, 2, 2], [2, 1, -2]], [0, 2]
    near(step("magface", embedding, label, **MAGFACE).loss, [13.392846, 14.075845])
    half = [0.5, 0.5]  # of the mean
    theirs = step("magface", embedding, label, upstream=half, easy_margin=True, **MAGFACE)
    near(theirs.loss.mean(), 10.620256)
    expected = [[-0.865036, -0.269592, -0.269592], [0.033364, -0.520035, -0.119987]]
    near(theirs.x, expected, atol=3e-6)


def test_sv_softmax_has_a_margin_beyond_a_right_angle_unless_easy():
    settings = {"t": 1.2, "m3": 0.35}
    near(step("sv_softmax", *FAR, **settings).loss, [15.129049, 3.783638])
    easy = step("sv_softmax", *FAR, easy_margin=True, **settings)
    near(easy.loss, [12.329053, 3.783638])
    # The threshold of hard classes has the margin at every angle: -3/7 is above -2/7 - 0.35.
    found = step("sv_softmax", [[-2, -3, -6]], [0], easy_margin=True, **settings).loss
    logits = SCALE * np.array([-2 / 7, 1.2 * -3 / 7 + 0.2, -6 / 7])
    near(found, np.log(np.exp(logits - logits[0]).sum()))


@pytest.mark.parametrize(
    ("name", "settings", "ours", "unguarded"),
    [
        ("elasticface", {"sigma": 0.0, "m2": 0.5}, 12.195925, 10.849387),
        ("sv_softmax", {"m2": 0.5, "m3": 0.0}, 14.246752, 12.900201),
    ],
)
def test_the_guard_adds_to_the_loss_beyond_pi_less_the_margin(name, settings, ours, unguarded):
    near(step(name, *FAR, **settings).loss[0], ours)
    # Without the guard, as in their code, the loss decreases as the image turns away.
    angle, gain = math.acos(-12 / 13), 0.5
    guarded = math.cos(angle) - gain * math.sin(gain)
    assert ours - unguarded == pytest.approx(SCALE * (math.cos(angle + gain) - guarded), abs=2e-5)


def test_elasticface_plus_selects_margins_by_rank_or_by_argsort():
    embedding, label = [[1, 2, 2], [2, 6, 3], [1, 2, 2]], [0, 1, 2]
    cosine = np.array([1 / 3, 6 / 7, 2 / 3])  # image 1 is the nearest, then 2, then 0
    rest = [
        np.exp(SCALE * np.delete(np.array(x) / np.linalg.norm(x), y)).sum()
        for x, y in zip(embedding, label)
    ]

    def margins(**settings):
        mx.random.seed(3)
        loss = step("elasticface", embedding, label, m2=0.4, sigma=0.1, **settings).loss
        psi = -np.log(np.expm1(loss.astype("f8")) / rest) / SCALE
        return np.arccos(psi) - np.arccos(cosine)

    drawn = np.sort(margins())
    assert np.diff(drawn).min() > 1e-3
    near(margins(plus=True), drawn[[2, 0, 1]])
    near(margins(plus=True, by_argsort=True), drawn[[1, 2, 0]])


def test_coco_needs_a_larger_scale_than_the_automatic_one_for_many_classes():
    weight = np.tile([0.0, 1.0], (87020, 1))
    weight[0] = [1, 0]
    automatic = step("coco", [[3, 0]], [0], weight, scale=0.0)
    scale = math.log(87019) / 2 + 3
    assert scale == pytest.approx(8.687, abs=1e-3)
    near(automatic.loss, math.log1p(87019 * math.exp(-scale)), atol=1e-4)
    near(automatic.loss, 2.75, atol=0.01)
    near(step("coco", [[3, 0]], [0], weight, scale=21.475).loss, 0.0000411, atol=5e-6)


def test_adaface_has_a_gradient_near_the_centre():
    embedding, label = [[3, 4, 0], [4, 3, 0]], [1, 0]
    weight = [[1, 0, 0], [0.6, 0.8, 0.02], [0, 0, 1]]
    found = step("adaface", embedding, label, weight, upstream=[1, 0])
    near(found.loss, [0.623157, 4.428270])
    # The first image is 1.1 degrees from its centre, where their code has no gradient.
    near(found.weight[1], [-0.001779, -0.002371, 0.148217], atol=2e-4)


def test_curricularface_compares_with_psi_or_without_the_guard():
    embedding, label = [[-24, -7, 0], [3, 4, 0]], [0, 1]
    weight, states = [[1, 0, 0], [24, 7, 0], [0, 0, 1]], {"t": [0.3]}
    ours, theirs = (
        step("curricularface", embedding, label, weight, states, guarded_threshold=guarded).loss
        for guarded in (True, False)
    )
    near(ours[0], 15.231683)
    near(theirs[0], 9.598105)
    near(ours[1], theirs[1])


def test_sub_center_arcface_counts_tied_centres_once():
    weight = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    settings = {"sub_centers": 2, "m2": 0.5}
    found = step("sub_center_arcface", [[3, 4, 0], [0, 3, 4]], [0, 1], weight, **settings)
    expected = [[0.04083, -0.03062, 0.05608], [0, 1.78459, -1.33844]]
    near(found.x, expected)
    assert not found.weight[3].any() and found.weight[2].any()
