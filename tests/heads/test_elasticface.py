# SPDX-License-Identifier: Apache-2.0
"""heads/elasticface.py: random margins and invalid settings."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

import ops
from heads import build_head
from tests.heads.by_hand import refusal
from tests.heads.oracles import unit
from tests.heads.test_losses import at_angles

BATCH, SCALE = 12, 16.0


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
def test_a_margin_is_drawn_for_each_image(plus, hybridize):
    random, label = np.random.RandomState(0), np.arange(BATCH) % 7
    weight = random.randn(7, 5) * 0.3
    angles = np.radians(np.linspace(20, 100, BATCH))
    x = at_angles(weight[label], angles, np.full(BATCH, 3.0), random)
    ops.use("native" if hybridize else "plain")
    mx.random.seed(3)
    head = build_head("elasticface", 7, 5, m2=0.4, sigma=0.05, plus=plus, scale=SCALE)
    head.initialize()
    head.weight.set_data(mx.nd.array(weight))
    if hybridize:
        head.hybridize(static_alloc=True, static_shape=True)
    arrays = mx.nd.array(x), mx.nd.array(label)
    # The margin that explains the loss: loss = log(1 + rest exp(-scale psi)).
    logits = SCALE * unit(x) @ unit(weight).T
    rest = np.exp(logits).sum(1) - np.exp(logits[np.arange(BATCH), label])
    drawn = []
    for _ in range(100):
        loss, cosine = (array.asnumpy().astype("f8") for array in head(*arrays))
        drawn.append(np.arccos(-np.log(np.expm1(loss) / rest) / SCALE) - np.arccos(cosine))
    drawn = np.array(drawn)
    assert abs(drawn.mean() - 0.4) < 0.006 and abs(drawn.std() - 0.05) < 0.006
    if plus:
        assert (np.diff(drawn, axis=1) > -1e-3).all()  # the further, the larger
    else:
        assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.3
        assert abs(drawn[:, 0].mean() - drawn[:, -1].mean()) < 0.02


def test_values_that_do_not_fit_are_refused():
    sigma = "head.sigma: must be a number from 0, got -1; the usual deviation is 0.05 radians"
    assert refusal("elasticface", sigma=-1) == sigma
    assert refusal("elasticface", plus=1) == "head.plus: must be true or false, got 1"
    assert refusal("elasticface", by_argsort=True) == (
        "head.by_argsort: needs head.plus=true, got head.plus=false; set head.plus=true"
    )
