# SPDX-License-Identifier: Apache-2.0
"""The cross-entropy of all heads with class centres, plain and native."""

from __future__ import annotations

import math

import mxnet as mx
import pytest

from heads.cross_entropy import (
    Form,
    column_numbers,
    cross_entropy,
    length,
    normalised,
    through_psi,
)
from tests.heads.by_hand import EYE, X
from tests.heads.by_hand import cross_entropy as by_hand

pytestmark = pytest.mark.usefixtures("operators")


def loss_of(form, centres=EYE, num_classes=3, columns=None, **options):
    arrays = [mx.nd.array(array) for array in (X, centres, [1])]
    options |= {"num_classes": num_classes, "form": form, "columns": columns}
    loss, score = cross_entropy(mx.nd, *arrays, **options)
    return pytest.approx([loss.asscalar(), score.asscalar()], rel=2e-5)


def test_scores_are_cosines_products_or_distances():
    assert [by_hand([1.2, 1.6, 0]), 0.8] == loss_of(Form(2.0))
    assert [by_hand([3, 4, 0]), 4] == loss_of(Form(unit_rows=False))
    products = Form(unit_rows=False, unit_columns=False)
    bias = mx.nd.array([1, -1, 0])
    assert [by_hand([4, 3, 0]), 3] == loss_of(products, bias=bias)
    assert [by_hand([2.5, 3.5, -0.5]), 3.5] == loss_of(products._replace(squares=True))


def test_the_nearest_of_several_centres_counts():
    centres = [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, -1, 0]]
    assert [by_hand([1.2, 1.6]), 0.8] == loss_of(Form(2.0, group=2), centres, 2)


def test_psi_replaces_the_score_of_the_true_class():
    found = loss_of(Form(2.0), margin=lambda score: (score - 0.3, mx.nd.ones_like(score)))
    assert [by_hand([1.2, 1.0, 0]), 0.8] == found


def test_scores_above_a_threshold_are_a_polynomial():
    numbers = column_numbers(mx.nd, mx.nd.ones((1,)), [1.0, 2.0, 3.0], [2.0, 2.0], 0.5)
    assert numbers.asnumpy().tolist() == [1, 2, 3, 2, 2, 0.5]
    found = loss_of(Form(2.0), columns=lambda psi, score: (score - 0.3, numbers))
    assert [by_hand([2 * (0.36 + 1.2 + 3), 1.6, 0]), 0.8] == found


def test_zero_rows_have_a_finite_gradient():
    x = mx.nd.zeros((1, 3))
    x.attach_grad()
    with mx.autograd.record():
        total = normalised(mx.nd, x).sum() + length(mx.nd, x).sum()
    total.backward()
    assert math.isfinite(x.grad.sum().asscalar())
    assert length(mx.nd, mx.nd.array(X)).asscalar() == pytest.approx(5)


def test_through_psi_carries_the_gradient_of_psi():
    quantity = mx.nd.array([0.3])
    quantity.attach_grad()
    loss = mx.nd.array([math.log(4)])  # p = 1 / 4
    with mx.autograd.record():
        found = through_psi(mx.nd, loss, quantity, 8.0)
    found.backward()
    assert found.asscalar() == pytest.approx(math.log(4))
    assert quantity.grad.asscalar() == pytest.approx(8 * (1 / 4 - 1))
