# SPDX-License-Identifier: Apache-2.0
"""AdaFace, MagFace, ElasticFace against float64 oracles from the papers' equations."""

from __future__ import annotations

import math

import mxnet as mx
import numpy as np
import pytest

import ops
from heads import build_head
from tests.heads.test_heads import inputs, numeric_gradient, run

SCALE = 16.0
BATCH = 12


@pytest.fixture(params=["plain", "native"], autouse=True)
def operators(request):
    ops.use(request.param)
    yield
    ops.use("plain")


def softmax(embedding, weight, label, psi_of):
    """Loss per image with psi_of(row, cosine of the target) in the place of that cosine."""
    unit = embedding / np.sqrt((embedding**2).sum(1, keepdims=True) + 1e-10)
    centre = weight / np.sqrt((weight**2).sum(1, keepdims=True) + 1e-10)
    logits = unit @ centre.T
    for row, y in enumerate(label):
        logits[row, y] = psi_of(row, logits[row, y])
    logits *= SCALE
    top = logits.max(1, keepdims=True)
    return (top[:, 0] + np.log(np.exp(logits - top).sum(1))) - logits[np.arange(len(label)), label]


def guarded(cosine, m):
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    return math.cos(angle + m) if angle <= math.pi - m else cosine - m * math.sin(m)


def adaface_oracle(embedding, weight, label, moments, m=0.4, h=0.333):
    lengths = np.clip(np.linalg.norm(embedding, axis=1), 1e-3, 100)
    quality = np.clip((lengths - moments[0]) / (moments[1] + 1e-3) * h, -1, 1)

    def psi(row, cosine):
        angle = math.acos(cosine) - m * quality[row]
        return math.cos(min(max(angle, 1e-3), math.pi - 1e-3)) - m * (1 + quality[row])

    return psi


def magface_oracle(embedding, weight, label, low=2.0, high=8.0, least=0.2, most=0.7, pull=3.0):
    a = np.clip(np.linalg.norm(embedding, axis=1), low, high)
    margin = least + (most - least) / (high - low) * (a - low)
    loss = softmax(embedding, weight, label, lambda row, c: guarded(c, margin[row]))
    return loss + pull * (a / high**2 + 1 / a)


MAGFACE = {"low": 2.0, "high": 8.0, "least": 0.2, "most": 0.7, "length_weight": 3.0}


def spread_inputs(seed=0):
    """Inputs at angles of 5 to 170 degrees, lengths of 1 to 10: beyond all limits used here."""
    embedding, weight, label = inputs(seed, np.radians(np.linspace(5, 170, BATCH)))
    embedding *= np.linspace(1, 10, BATCH)[np.random.RandomState(seed).permutation(BATCH), None] / 3
    return embedding.astype("f4").astype("f8"), weight, label


def made(name, weight, hybridize=False, **settings):
    head = build_head(name, *weight.shape, scale=SCALE, **settings)
    head.initialize()
    head.weight.set_data(mx.nd.array(weight))
    if hybridize:
        head.hybridize(static_alloc=True, static_shape=True)
    return head


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=3e-4 * abs(theirs).max())


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
def test_magface_is_its_equations(hybridize):
    embedding, weight, label = spread_inputs()
    head = made("magface", weight, hybridize, **MAGFACE)
    loss, _, d_embedding, d_weight = run(head, embedding, label)
    np.testing.assert_allclose(loss, magface_oracle(embedding, weight, label), rtol=2e-5)

    def total():
        return magface_oracle(embedding, weight, label).sum()

    close(d_embedding, numeric_gradient(total, embedding))
    close(d_weight, numeric_gradient(total, weight))


def test_magface_with_half_the_margin():
    embedding, weight, label = spread_inputs(1)
    head = made("magface", weight, **MAGFACE)
    _, _, d_embedding, _ = run(head, embedding, label, mx.nd.array([0.5]))

    def half():
        a = np.clip(np.linalg.norm(embedding, axis=1), 2, 8)
        margin = 0.2 + 0.5 / 6 * (a - 2)
        loss = softmax(embedding, weight, label, lambda row, c: (c + guarded(c, margin[row])) / 2)
        return (loss + 3 * (a / 64 + 1 / a)).sum()

    close(d_embedding, numeric_gradient(half, embedding))


def test_magface_of_one_margin_is_arcface():
    embedding, weight, label = spread_inputs()
    ours = made("magface", weight, **{**MAGFACE, "least": 0.5, "most": 0.5, "length_weight": 0.0})
    arcface = made("arcface", weight, m2=0.5)
    for found, expected in zip(run(ours, embedding, label), run(arcface, embedding, label)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("moments", [(5.0, 2.0), (3.0, 0.5)], ids=["wide", "at the limits"])
def test_adaface_is_its_equations(hybridize, moments):
    embedding, weight, label = spread_inputs()
    head = made("adaface", weight, hybridize, momentum=1e-9)
    head.lengths.set_data(mx.nd.array(moments))
    loss, _, d_embedding, d_weight = run(head, embedding, label)
    # The quality is a constant to the gradient.
    psi = adaface_oracle(embedding, weight, label, moments)
    np.testing.assert_allclose(loss, softmax(embedding, weight, label, psi), rtol=2e-5, atol=1e-5)

    def total():
        return softmax(embedding, weight, label, psi).sum()

    close(d_embedding, numeric_gradient(total, embedding))
    close(d_weight, numeric_gradient(total, weight))


def test_adaface_learns_the_lengths_of_all_ranks():
    embedding, weight, label = spread_inputs()
    lengths = np.linalg.norm(embedding, axis=1)
    head = made("adaface", weight, momentum=0.25)
    assert head.lengths.data().asnumpy().tolist() == [20, 100]
    run(head, embedding, label)
    expected = np.array([20, 100]) + 0.25 * (np.array([lengths.mean(), lengths.std()]) - [20, 100])
    np.testing.assert_allclose(head.lengths.data().asnumpy(), expected, rtol=1e-5)
    head(mx.nd.array(embedding), mx.nd.array(label))  # not in training
    np.testing.assert_allclose(head.lengths.data().asnumpy(), expected, rtol=1e-5)

    # Of two ranks each has half of the batch.
    other = []
    rank = made("adaface", weight, reduce=lambda rows, by: other.append(rows) or by(rows))
    run(rank, embedding[6:], label[6:])
    both = lambda rows, by: by(mx.nd.concat(rows, *other, dim=0))  # noqa: E731
    rank = made("adaface", weight, reduce=both, momentum=0.25)
    run(rank, embedding[:6], label[:6])
    np.testing.assert_allclose(rank.lengths.data().asnumpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
def test_elasticface_draws_a_margin_for_each_image(plus, hybridize):
    embedding, weight, label = inputs(0, np.radians(np.linspace(20, 100, BATCH)))
    mx.random.seed(3)
    drawn = []
    head = made("elasticface", weight, hybridize, m2=0.4, sigma=0.05, plus=plus)
    for _ in range(200):
        loss, cosine, _, _ = run(head, embedding, label)
        # The margin that explains the loss: loss = log(1 + rest exp(-scale psi)).
        unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        logits = SCALE * unit @ (weight / np.linalg.norm(weight, axis=1, keepdims=True)).T
        rest = np.exp(logits).sum(1) - np.exp(logits[np.arange(BATCH), label])
        psi = -np.log(np.expm1(loss.astype("f8")) / rest) / SCALE
        drawn.append(np.arccos(psi) - np.arccos(cosine))
    drawn = np.array(drawn)
    assert abs(drawn.mean() - 0.4) < 0.005 and abs(drawn.std() - 0.05) < 0.005
    if plus:
        assert (np.diff(drawn, axis=1) > -1e-3).all()  # the further, the larger
    else:
        assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.3
        assert abs(drawn[:, 0].mean() - drawn[:, -1].mean()) < 0.02


def test_elasticface_without_deviation_is_arcface():
    embedding, weight, label = spread_inputs()
    ours = made("elasticface", weight, m2=0.5, sigma=0.0)
    arcface = made("arcface", weight, m2=0.5)
    for found, expected in zip(run(ours, embedding, label), run(arcface, embedding, label)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adaface", "magface", "elasticface"])
def test_edges(name):
    _, weight, _ = inputs()
    zero = np.zeros((2, weight.shape[1]))
    along = np.stack([weight[0], -weight[len(weight) - 1]])
    for embedding, at in ((zero, [0, len(weight) - 1]), (along, [0, len(weight) - 1])):
        for part in (slice(0, 2), slice(1, 2)):  # a batch of one too
            found = run(made(name, weight), embedding[part], np.array(at)[part])
            assert all(np.isfinite(array).all() for array in found)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("adaface", {"m": 2}, "head.m: must be a number from 0 up to 1, got 2; 0.4 is usual"),
        ("adaface", {"momentum": 0}, "head.momentum: must be a number above 0 up to 1, got 0"),
        ("magface", {"high": 5}, "head.high: must be a number above 10, got 5; 110 is usual"),
        ("magface", {"most": 0.1}, "head.most: must be a number from 0.45"),
        ("elasticface", {"sigma": -1}, "head.sigma: must be a number from 0, got -1"),
        ("magface", {"easy_margin": 1}, "head.easy_margin: must be true or false, got 1; write it"),
        ("elasticface", {"plus": 1}, "head.plus: must be true or false, got 1"),
        ("elasticface", {"by_argsort": 1}, "head.by_argsort: must be true or false, got 1"),
        (
            "elasticface",
            {"by_argsort": True},
            "head.by_argsort: goes with head.plus=true, got head.plus=false; set head.plus=true",
        ),
        ("arcface", {"reduce": 1}, ""),
    ],
)
def test_refusals(name, settings, sentence):
    if not sentence:
        build_head(name, 3, 4, **settings)  # heads without statistics do without it
        return
    with pytest.raises(ValueError) as refused:
        build_head(name, 3, 4, **settings)
    assert str(refused.value).startswith(sentence)
