# SPDX-License-Identifier: Apache-2.0
"""The base class of margin losses: a new margin, and its fraction in a warm-up."""

from __future__ import annotations

import mxnet as mx
import pytest

import ops
from heads.margin_softmax import MarginSoftmax
from tests.heads.by_hand import EYE, X, cross_entropy

pytestmark = pytest.mark.usefixtures("operators")


class Half(MarginSoftmax):
    """psi = c / 2."""

    def margin(self, F, cosine, embedding):
        return cosine / 2, F.ones_like(cosine) / 2


@pytest.mark.parametrize(("kind", "psi"), [(MarginSoftmax, 0.8), (Half, 0.4)])
def test_the_margin_fraction(kind, psi):
    head = kind(3, 3, scale=2.0)
    head.initialize()
    head.weight.set_data(mx.nd.array(EYE))
    for fraction in (0.0, 0.25, 1.0):
        loss, cosine = head(mx.nd.array(X), mx.nd.array([1]), mx.nd.array([fraction]))
        target = (1 - fraction) * 0.8 + fraction * psi
        expected = cross_entropy([1.2, 2 * target, 0])
        assert loss.asscalar() == pytest.approx(expected, rel=1e-5)
        assert cosine.asscalar() == pytest.approx(0.8)


def test_the_fused_operators_do_not_add_to_a_gradient():
    ops.use("native")
    head = MarginSoftmax(3, 3, scale=2.0)
    head.initialize()
    head.collect_params().setattr("grad_req", "add")
    with pytest.raises(ValueError, match=r"^head: the fused operators cannot add to a gradient, "):
        head(mx.nd.array(X), mx.nd.array([1]))
