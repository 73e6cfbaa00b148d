# SPDX-License-Identifier: Apache-2.0
"""AdaFace."""

from typing import Annotated

import mxnet as mx
from mxnet import autograd

from heads.cross_entropy import length
from heads.margin_softmax import MarginSoftmax
from heads.margins import adaptive_angle
from heads.settings import Momentum, Scale
from heads.statistics import Reduce, Traced, alone, state
from ranges import Within, above

MIN_LENGTH, MAX_LENGTH = 1e-3, 100.0


class AdaFace(MarginSoftmax):
    """Softmax with a margin by the quality of the image, for which the embedding's length stands.

    s c_j; true class: s (cos(t - m q) - m q - m), q = h (|x| - mean) / deviation in [-1, 1]

    Kim et al., "AdaFace", arXiv:2204.00964, equations 13 to 15.

    Mean and deviation of the lengths are running ones; no gradient flows through q. The deviation
    of a batch is not corrected for a sample, so that a batch may be a single image.

    Parameters
    ----------
    m
        Margin.
    h
        Share of the deviation: with 0.333, q is within [-1, 1] for two thirds of the images.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        reduce: Reduce = alone,
        *,
        m: Annotated[float, Within(0, 1, "0.4 is usual")] = 0.4,
        h: Annotated[float, above(0, "0.333 is usual")] = 0.333,
        momentum: Momentum = 0.01,
        scale: Scale = 64.0,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self._m, self._h, self._momentum, self._reduce = m, h, momentum, reduce
        self._lengths_of, self._moments = Traced(_clipped_length), Traced(_mean_and_deviation)
        # Running mean and deviation; its authors' first values.
        first = mx.init.Constant(mx.nd.array([20.0, 100.0]))
        self.lengths = state(self, "lengths", (2,), first)

    def forward(self, embedding, label, margin_fraction=None):
        if autograd.is_training() and isinstance(embedding, mx.nd.NDArray):
            with autograd.pause():
                self._observe(embedding)
        return super().forward(embedding, label, margin_fraction)

    def _observe(self, embedding: mx.nd.NDArray) -> None:
        """Move the running mean and deviation towards those of a batch of all ranks."""
        running = self.lengths.list_data()[0]
        lengths = self._lengths_of(embedding)
        batch = self._reduce(lengths, lambda rows: self._moments(rows, running))
        running[:] = running + self._momentum * (batch - running)

    def margin(self, F, cosine, embedding, lengths):
        mean = F.slice_axis(lengths, axis=0, begin=0, end=1)
        deviation = F.slice_axis(lengths, axis=0, begin=1, end=2)
        apart = F.broadcast_sub(_clipped_length(F, embedding), mean)
        quality = F.broadcast_div(apart, deviation + 1e-3) * self._h
        return adaptive_angle(F, cosine, F.clip(quality, -1.0, 1.0), self._m)


def _clipped_length(F, embedding):
    return F.clip(length(F, embedding), MIN_LENGTH, MAX_LENGTH)


def _mean_and_deviation(F, lengths, running):
    # About the running mean: squares of the lengths themselves would round it away.
    mean = F.slice_axis(running, axis=0, begin=0, end=1)
    apart = F.broadcast_sub(lengths, mean)
    first = F.mean(apart, axis=0, keepdims=True)
    second = F.mean(F.square(apart), axis=0, keepdims=True)
    return F.concat(mean + first, F.sqrt(F.relu(second - F.square(first))), dim=0)
