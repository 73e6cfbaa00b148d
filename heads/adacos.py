# SPDX-License-Identifier: Apache-2.0
"""AdaCos: a softmax on cosines that finds its scale from the batches."""

import math

import mxnet as mx
from mxnet import autograd

import ops
from heads.cross_entropy import Form, cross_entropy, normalised
from heads.margin_softmax import MarginSoftmax, check_size
from heads.statistics import Reduce, alone

NOWHERE = -1000.0  # cosine of a class that is to be left out of a sum


class AdaCos(MarginSoftmax):
    """Softmax on cosines, times a scale that follows the batches: see `adacos`."""

    _may_step = False

    def __init__(
        self, num_classes: int, embedding_size: int, reduce: Reduce = alone, **kwargs
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=1.0, **kwargs)
        self._reduce = reduce
        first = math.sqrt(2.0) * math.log(max(num_classes - 1, 2))
        with self.name_scope():
            self.scale = self.params.get(
                "scale",
                shape=(1,),
                init=mx.init.Constant(first),
                grad_req="null",
                differentiable=False,
            )

    def forward(self, embedding, label, margin_fraction=None):
        if autograd.is_training() and isinstance(embedding, mx.nd.NDArray):
            with autograd.pause():
                self._observe(embedding, label)
        return super().forward(embedding, label, margin_fraction)

    def _observe(self, embedding: mx.nd.NDArray, label: mx.nd.NDArray) -> None:
        """Set the scale for a batch of all ranks."""
        scale, weight = self.scale.list_data()[0], self.weight.list_data()[0]
        unit = normalised(mx.nd, embedding)
        rows = mx.nd.broadcast_mul(unit, scale.reshape((1, 1)))
        centre = normalised(mx.nd, mx.nd.take(weight, label, mode="clip"))
        cosine = mx.nd.clip((unit * centre).sum(axis=1), -1.0, 1.0)
        found = mx.nd.stack(self._others(rows, weight, label), mx.nd.arccos(cosine), axis=1)

        def fitting(rows: mx.nd.NDArray) -> mx.nd.NDArray:
            top = rows[:, 0].max()
            mean = mx.nd.log(mx.nd.exp(rows[:, 0] - top).mean()) + top
            angles, middle = mx.nd.sort(rows[:, 1], axis=0), (len(rows) - 1) // 2
            median = angles[middle : middle + 2 - len(rows) % 2].mean()
            return mean / mx.nd.cos(mx.nd.minimum(median, math.pi / 4))

        scale[:] = self._reduce(found, fitting)

    def _others(
        self, rows: mx.nd.NDArray, weight: mx.nd.NDArray, label: mx.nd.NDArray
    ) -> mx.nd.NDArray:
        """Return the logarithm of the sum over the other classes of exp(scale cos t), (B,)."""
        left_out = mx.nd.full(label.shape, NOWHERE, ctx=rows.context, dtype=rows.dtype)
        if ops.fused_scores():
            _, _, top, total, _, _ = mx.nd.face_margin_softmax(
                *(rows, weight, label.astype(rows.dtype), left_out, left_out),
                scale=1.0,
                unit_rows=0,
                pulls=0,
            )
            return mx.nd.log(total) + top
        logits = mx.nd.dot(rows, normalised(mx.nd, weight), transpose_b=True)
        own = mx.nd.one_hot(label, self._num_classes, dtype=rows.dtype)
        logits = mx.nd.where(own, mx.nd.ones_like(logits) * NOWHERE, logits)
        top = logits.max(axis=1)
        powers = mx.nd.exp(mx.nd.broadcast_sub(logits, top.reshape((-1, 1))))
        return mx.nd.log(powers.sum(axis=1)) + top

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight, scale):
        unit = normalised(F, embedding)
        size = F.BlockGrad(F.reshape(scale, shape=(1, 1)))
        loss, score = cross_entropy(
            F,
            F.broadcast_mul(unit, size),
            weight,
            label,
            self._num_classes,
            Form(unit_rows=False),
            dtype=self._dtype,
        )
        return loss, F.broadcast_div(score, F.reshape(size, shape=(1,)))


def adacos(num_classes: int, embedding_size: int, reduce: Reduce = alone) -> AdaCos:
    """Build a softmax on cosines whose scale follows the batches.

    The first scale is sqrt(2) log(C - 1); with every batch of training it becomes
    log(B) / cos(min(pi / 4, median angle to the true class)), where B is the mean over the images
    of the sum of exp(scale cos t) over the other classes.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    reduce
        See `heads.statistics.Reduce`.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Zhang et al., "AdaCos", arXiv:1905.00292, equations 12 to 15. A margin fraction has no effect.
    """
    size = check_size(num_classes, embedding_size, 1.0)
    del size["scale"]
    return AdaCos(**size, reduce=reduce)
