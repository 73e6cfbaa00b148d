# SPDX-License-Identifier: Apache-2.0
"""Ties: only one of several equally near images or centres counts, plain and native."""

from __future__ import annotations

import copy
import functools

import mxnet as mx
import numpy as np
import pytest

from heads import build_head
from tests.heads import test_losses as losses
from tests.heads.oracles import Point, numeric_gradient
from tests.heads.test_losses import LABEL, build, inputs, loss_of, name_of, rows_of

# Groups of equal images, each of one person, so that two people never have a distance of 0.
IMAGES = np.array([0, 0, 1, 1, 4, 4, 5, 7, 7, 8, 10, 11])
TIED = [
    *("sub_center_arcface", "sub_center_arcface 2", "circle", "sv_softmax easy", "marginal"),
    *("range", "contrastive", "triplet", "triplet hard", "angular_triplet hard", "n_pair"),
    *("mps", "mps wide"),
]


pytestmark = pytest.mark.usefixtures("operators")


def centres_of(case):
    """Return groups of equal rows of the class matrix: the first two centres of every class."""
    sub_centers = rows_of(case) // losses.CLASSES
    return np.array([row - (row % sub_centers == 1) for row in range(rows_of(case))])


def tied(case, images, centres):
    """Return the point of the case with equal images and equal centres."""
    point = inputs(case)
    point.x = images[IMAGES]
    if centres is not None:
        point.weight = centres[centres_of(case)]
    return point


def summed(rows, groups, count):
    """Return the gradient for a common change of all rows of a group."""
    found = np.zeros((count, rows.shape[1]))
    np.add.at(found, groups, rows)
    return found


@functools.cache
def expected(case):
    """Return losses, and the gradients for a common change of equal rows."""
    start = inputs(case)
    images, centres = start.x.copy(), copy.copy(start.weight)

    held = tied(case, images, centres)
    loss = loss_of(case, held, LABEL)

    def total():
        return losses.weights() @ loss_of(case, tied(case, images, centres), LABEL, 1.0, held)

    arrays = {"x": images} | ({} if centres is None else {"weight": centres})
    return loss, {key: numeric_gradient(total, array) for key, array in arrays.items()}


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("case", TIED)
def test_equal_rows_count_once(case, hybridize):
    start = inputs(case)
    point = tied(case, start.x, start.weight)
    found = losses.run(build(case, point, hybridize), point, LABEL, None, losses.weights())
    loss, gradients = expected(case)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5, atol=1e-5)
    groups = {"x": IMAGES} | ({} if start.weight is None else {"weight": centres_of(case)})
    for key, array in gradients.items():
        ours = summed(found[key], groups[key], len(array))
        limit = 2e-4 * abs(array).max()
        np.testing.assert_allclose(ours, array, rtol=1e-3, atol=limit, err_msg=key)
    if name_of(case) == "sub_center_arcface":  # of two that are alike the first alone moves
        assert not found["weight"][centres_of(case) != np.arange(rows_of(case))].any()


@pytest.mark.parametrize("sub_centers", [2, 3, 5])
def test_equal_sub_centres_give_the_loss_of_arcface(sub_centers):
    point = inputs("arcface")
    several = Point(point.x, point.weight.repeat(sub_centers, axis=0))
    one = losses.step_of("arcface", {"scale": 16.0}, point)
    settings = {"scale": 16.0, "sub_centers": sub_centers}
    found = losses.step_of("sub_center_arcface", settings, several)
    assert not found["weight"].reshape(losses.CLASSES, sub_centers, -1)[:, 1:].any()
    found["weight"] = found["weight"][::sub_centers]
    losses.equal(found, one)


def step(name, settings, x, weight, label):
    head = build_head(name, *weight.shape, scale=16.0, **settings)
    head.initialize()
    head.weight.set_data(mx.nd.array(weight))
    return losses.run(head, Point(x), label)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sv_softmax", {"m3": 0.0, "t": 1.5}),
        ("curricularface", {"m2": 0.0, "momentum": 1.0}),
        ("curricularface", {"m2": 0.0, "momentum": 1.0, "guarded_threshold": False}),
    ],
)
def test_a_class_with_the_cosine_of_the_true_class_is_not_hard(name, settings):
    # Without a margin psi is the cosine, and each class has an equal one. A rounding error could
    # make the equal class hard in one form and not in the other, and the loss would jump.
    random = np.random.RandomState(0)
    weight = random.randn(8, 61).repeat(2, axis=0)
    label = np.arange(64) % 16
    x = weight[label] + random.randn(64, 61)
    losses.equal(
        step(name, settings, x, weight, label),
        step("normface", {}, x, weight, label),
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("arcface", {}),
        ("sub_center_arcface", {"sub_centers": 1}),
        ("sv_softmax", {"t": 1.0}),
        ("sv_softmax", {"t": 1.0, "m1": 1.2, "m2": 0.3}),
        ("magface", {"length_weight": 0.0, "low": 1.0}),
    ],
)
def test_an_easy_margin_does_not_apply_to_a_right_angle(name, settings):
    # The computed cosine of such an image is a rounding error with either sign.
    random = np.random.RandomState(1)
    weight, label = random.randn(8, 62), np.arange(64) % 8
    weight[:, 1::2] = weight[:, ::2]
    x = random.randn(64, 62)
    x[:, 1::2] = -x[:, ::2]
    losses.equal(
        step(name, {**settings, "easy_margin": True}, x, weight, label),
        step("normface", {}, x, weight, label),
    )
