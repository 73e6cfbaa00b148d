# SPDX-License-Identifier: Apache-2.0
"""CurricularFace."""

import mxnet as mx
from mxnet import autograd

from heads.cross_entropy import column_numbers, normalised
from heads.margin_softmax import MarginSoftmax
from heads.margins import ROUNDING, additive_angle, unguarded_angle
from heads.settings import Angle, Momentum, Scale
from heads.statistics import Reduce, alone, state


class CurricularFace(MarginSoftmax):
    """ArcFace whose hard other classes count the more the further training is.

    s c_j, where c_j > psi: s c_j (t + c_j), t the running mean of c; true class: s psi of arcface

    Huang et al., "CurricularFace", arXiv:2004.00288, equations 4 to 7.

    The margin fraction of a warm-up holds for the other classes, too. The thresholds differ where
    t > pi - m2: with the guard all classes are hard there.

    Parameters
    ----------
    guarded_threshold
        Whether classes are compared with psi as it is, guarded; false compares them with
        cos(t_y + m2) without the guard, as the authors' released code does.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        reduce: Reduce = alone,
        *,
        m2: Angle = 0.5,
        scale: Scale = 64.0,
        momentum: Momentum = 0.01,
        guarded_threshold: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self._m2, self._guarded_threshold = m2, guarded_threshold
        self._momentum, self._reduce = momentum, reduce
        self.t = state(self, "t", (1,), mx.init.Zero())

    def forward(self, embedding, label, margin_fraction=None):
        if autograd.is_training() and isinstance(embedding, mx.nd.NDArray):
            with autograd.pause():
                centre = mx.nd.take(self.weight.list_data()[0], label, mode="clip")
                cosine = (normalised(mx.nd, embedding) * normalised(mx.nd, centre)).sum(axis=1)
                t = self.t.list_data()[0]
                t[:] = t + self._momentum * (self._reduce(cosine, mx.nd.mean) - t)
        return super().forward(embedding, label, margin_fraction)

    def margin(self, F, cosine, embedding, t):
        return additive_angle(F, cosine, self._m2)

    def columns(self, F, fraction, psi, cosine, t):
        linear = 1.0 + fraction * (t - 1.0)
        value, slope = [fraction, linear, 0.0], [2.0 * fraction, linear]
        if not self._guarded_threshold:
            unguarded = unguarded_angle(F, cosine, self._m2)
            psi = cosine + F.broadcast_mul(unguarded - cosine, fraction)
        # A class as near as psi is not hard.
        return psi + ROUNDING, column_numbers(F, fraction, value, slope, 1.0)
