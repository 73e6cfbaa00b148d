# SPDX-License-Identifier: Apache-2.0
"""AdaCos."""

import math

import mxnet as mx
from mxnet import autograd

import ops
from heads.cross_entropy import Form, cross_entropy, normalised
from heads.head import ClassHead, require
from heads.statistics import Reduce, Traced, alone, state
from ranges import at_least

NOWHERE = -1000.0  # cosine of a class that is to be left out of a sum
# With few classes, all of them opposite, the logarithm would fall below 0; where classes crowd, as
# in two dimensions, the scale would grow with itself for ever.
MIN_SCALE, MAX_SCALE = 1e-3, 1e3


class AdaCos(ClassHead):
    """Softmax on cosines whose scale follows the batches.

    s c_j, s = log(B) / cos(min(pi / 4, median t)), B the mean of sum exp(s c_j) over other classes

    Zhang et al., "AdaCos", arXiv:1905.00292, equations 12 to 15.

    The first scale is sqrt(2) log(C - 1); every batch of training sets the next. A margin fraction
    has no effect. The scale is kept from 0.001 to 1000. The classes are gone over twice, for the
    scale and for the loss.
    """

    def __init__(
        self, num_classes: int, embedding_size: int, reduce: Reduce = alone, **kwargs
    ) -> None:
        require(
            "num_classes", int, at_least(3, "the scale of adacos goes by the others"), num_classes
        )
        super().__init__(num_classes, embedding_size, **kwargs)
        self._reduce, self._found = reduce, Traced(self._rows)
        first = math.sqrt(2.0) * math.log(num_classes - 1)
        self.scale = state(self, "scale", (1,), mx.init.Constant(first))

    def forward(self, embedding, label, margin_fraction=None):
        if autograd.is_training() and isinstance(embedding, mx.nd.NDArray):
            with autograd.pause():
                self._observe(embedding, label)
        return super().forward(embedding, label, margin_fraction)

    def _observe(self, embedding: mx.nd.NDArray, label: mx.nd.NDArray) -> None:
        """Set the scale for a batch of all ranks."""
        scale = self.scale.list_data()[0]
        found = self._found(embedding, label, self.weight.list_data()[0], scale)

        def fitting(rows: mx.nd.NDArray) -> mx.nd.NDArray:
            others, angles = rows[:, 0], mx.nd.sort(rows[:, 1], axis=0)
            top, middle = others.max(), (len(rows) - 1) // 2
            mean = mx.nd.log(mx.nd.exp(others - top).mean()) + top
            median = angles[middle : middle + 2 - len(rows) % 2].mean()
            scale = mean / mx.nd.cos(mx.nd.minimum(median, math.pi / 4))
            return mx.nd.clip(scale, MIN_SCALE, MAX_SCALE)

        scale[:] = self._reduce(found, fitting)

    def _rows(self, F, embedding, label, weight, scale):
        """Return for each image log sum exp(scale cos t) over the other classes, and its angle."""
        unit = normalised(F, embedding)
        rows = F.broadcast_mul(unit, F.reshape(scale, shape=(1, 1)))
        centre = normalised(F, F.take(weight, label, mode="clip"))
        angle = F.arccos(F.clip(F.sum(unit * centre, axis=1), -1.0, 1.0))
        if ops.fused_scores():
            label = F.cast(label, dtype=self._dtype)
            left_out = F.ones_like(angle) * NOWHERE
            _, _, top, total, _, _ = F.face_margin_softmax(
                rows, weight, label, left_out, left_out, scale=1.0, unit_rows=0, pulls=0
            )
            return F.stack(F.log(total) + top, angle, axis=1)
        logits = F.FullyConnected(
            rows, normalised(F, weight), num_hidden=self._num_classes, no_bias=True
        )
        own = F.one_hot(label, self._num_classes)
        logits = F.where(own, F.ones_like(logits) * NOWHERE, logits)
        top = F.max(logits, axis=1, keepdims=True)
        total = F.sum(F.exp(F.broadcast_sub(logits, top)), axis=1)
        return F.stack(F.log(total) + F.reshape(top, shape=(-1,)), angle, axis=1)

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight, scale):
        unit = normalised(F, embedding)
        size = F.BlockGrad(F.reshape(scale, shape=(1, 1)))
        loss, score = cross_entropy(
            F,
            F.broadcast_mul(unit, size),
            weight,
            label,
            num_classes=self._num_classes,
            form=Form(unit_rows=False),
            dtype=self._dtype,
        )
        return loss, F.broadcast_div(score, F.reshape(size, shape=(1,)))
