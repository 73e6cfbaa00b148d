# SPDX-License-Identifier: Apache-2.0
"""Helpers for hand-computed losses and for the errors of invalid settings."""

from __future__ import annotations

import math

import mxnet as mx
import pytest

from heads import build_head

EYE = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
X, T = [[3, 4, 0]], math.acos(0.8)
"""An embedding of length 5 with cosines of 0.6, 0.8 and 0 to the centres EYE; its angle to 1."""


def losses(name, x=X, label=(1,), weight=EYE, **settings):
    """Return the losses of a batch outside training."""
    num_classes = len(weight) // settings.get("sub_centers", 1)
    head = build_head(name, num_classes, len(weight[0]), **settings)
    head.initialize()
    if hasattr(head, "weight"):
        head.weight.set_data(mx.nd.array(weight))
    loss, _ = head(mx.nd.array(x), mx.nd.array(label))
    return pytest.approx(loss.asnumpy().tolist(), rel=2e-5, abs=2e-6)


def cross_entropy(logits, label=1):
    return math.log(sum(map(math.exp, logits))) - logits[label]


def refusal(name, **settings):
    """Return the error for these settings."""
    with pytest.raises(ValueError) as refused:
        build_head(name, 7, 5, **settings)
    return str(refused.value)
