# SPDX-License-Identifier: Apache-2.0
"""AdaFace."""

from typing import Annotated, Any

import mxnet as mx

from heads.cross_entropy import length
from heads.margin_softmax import MarginSoftmax
from heads.margins import adaptive_angle
from heads.settings import Momentum
from heads.statistics import TracedFunction, create_state
from ranges import Within, above

MIN_LENGTH, MAX_LENGTH = 1e-3, 100.0


class AdaFace(MarginSoftmax):
    """Softmax with a margin that adapts to image quality, measured by the embedding's length.

    s c_j; true class: s (cos(t - m q) - m q - m), q = h (|x| - mean) / deviation in [-1, 1]

    Kim et al., "AdaFace", arXiv:2204.00964, equations 13 to 15.

    Mean and deviation are running statistics of the lengths; no gradient flows through q. The
    deviation of a batch divides by B, not B - 1, so that one image is a valid batch.

    Parameters
    ----------
    m
        Margin.
    h
        Factor on the normalised length: with 0.333, q is in [-1, 1] for two thirds of the images.
    """

    def __init__(
        self,
        *sizes: int,
        m: Annotated[float, Within(0, 1, "0.4 is usual")] = 0.4,
        h: Annotated[float, above(0, "0.333 is usual")] = 0.333,
        momentum: Momentum = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._m, self._h, self._momentum = m, h, momentum
        self._lengths_of = TracedFunction(_clipped_length)
        self._moments = TracedFunction(_mean_and_deviation)
        # Running mean and deviation, with the authors' first values.
        first = mx.init.Constant(mx.nd.array([20.0, 100.0]))
        self.lengths = create_state(self, "lengths", (2,), first)

    def update_statistics(self, embedding: mx.nd.NDArray, label: mx.nd.NDArray) -> None:
        running = self.lengths.list_data()[0]
        lengths = self._lengths_of(embedding)
        batch = self._reduce(lengths, lambda rows: self._moments(rows, running))
        running[:] = running + self._momentum * (batch - running)

    def margin(self, F: Any, cosine: Any, embedding: Any, lengths: Any) -> tuple[Any, Any]:
        mean = F.slice_axis(lengths, axis=0, begin=0, end=1)
        deviation = F.slice_axis(lengths, axis=0, begin=1, end=2)
        difference = F.broadcast_sub(_clipped_length(F, embedding), mean)
        quality = F.broadcast_div(difference, deviation + 1e-3) * self._h
        return adaptive_angle(F, cosine, F.clip(quality, -1.0, 1.0), self._m)


def _clipped_length(F: Any, embedding: Any) -> Any:
    return F.clip(length(F, embedding), MIN_LENGTH, MAX_LENGTH)


def _mean_and_deviation(F: Any, lengths: Any, running: Any) -> Any:
    # Around the running mean, because squares of the lengths themselves lose the digits.
    mean = F.slice_axis(running, axis=0, begin=0, end=1)
    difference = F.broadcast_sub(lengths, mean)
    first = F.mean(difference, axis=0, keepdims=True)
    second = F.mean(F.square(difference), axis=0, keepdims=True)
    return F.concat(mean + first, F.sqrt(F.relu(second - F.square(first))), dim=0)
