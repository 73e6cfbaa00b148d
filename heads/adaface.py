# SPDX-License-Identifier: Apache-2.0
"""AdaFace: a softmax loss with a margin that adapts to image quality."""

from typing import Annotated, Any

import mxnet as mx

from heads.cross_entropy import length
from heads.margin_softmax import MarginSoftmax
from heads.margins import adaptive_angle
from heads.settings import Momentum
from heads.statistics import TracedFunction, create_state
from ranges import Within, above

# Range to which the L2 norm of an embedding is clipped.
MIN_LENGTH, MAX_LENGTH = 1e-3, 100.0


class AdaFace(MarginSoftmax):
    """Softmax with a margin that adapts to image quality, measured by the norm of the embedding.

    logits s c_j; true class: s (cos(t - m q) - m q - m),
    q = h (|x| - mean) / deviation, clipped to [-1, 1]

    Kim et al., "AdaFace", arXiv:2204.00964, equations 13 to 15.

    Symbols: c_j is the cosine of an embedding to the centre of class j; c and t are its cosine and
    angle to the centre of the true class; s is ``scale``.

    ``mean`` and ``deviation`` are the running mean and standard deviation of the L2 norms |x|. No
    gradient flows through the quality q. The standard deviation of a batch of B images divides by
    B, not by B - 1, so that a batch of one image is valid.

    Parameters
    ----------
    m
        Size of the margin on the angle (radians) and on the cosine.
    h
        Factor on the standardised L2 norm of the embedding, (norm - mean) / deviation. With 0.333,
        the limits of q, -1 and 1, are reached three standard deviations from the mean norm.
    """

    def __init__(
        self,
        *sizes: int,
        m: Annotated[float, Within(0, 1, "the usual margin is 0.4")] = 0.4,
        h: Annotated[float, above(0, "the usual factor is 0.333")] = 0.333,
        momentum: Momentum = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._m, self._h, self._momentum = m, h, momentum
        self._lengths_of = TracedFunction(_clipped_length)
        self._moments = TracedFunction(_mean_and_deviation)
        # Running mean and standard deviation of the L2 norms; the initial values 20 and 100 are
        # those of the authors' code.
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
    # Subtract the running mean first: the mean square minus the squared mean of large norms would
    # lose its significant digits in float32.
    mean = F.slice_axis(running, axis=0, begin=0, end=1)
    difference = F.broadcast_sub(lengths, mean)
    first = F.mean(difference, axis=0, keepdims=True)
    second = F.mean(F.square(difference), axis=0, keepdims=True)
    return F.concat(mean + first, F.sqrt(F.relu(second - F.square(first))), dim=0)
