# SPDX-License-Identifier: Apache-2.0
"""CurricularFace."""

from typing import Any

import mxnet as mx

from heads.cross_entropy import column_numbers, normalised
from heads.margin_softmax import MarginSoftmax
from heads.margins import ROUNDING, additive_angle, unguarded_angle
from heads.settings import Angle, Momentum
from heads.statistics import create_state


class CurricularFace(MarginSoftmax):
    """ArcFace with a weight on hard other classes that grows in the course of training.

    s c_j, where c_j > psi: s c_j (t + c_j), t the running mean of c; true class: s psi of arcface

    Huang et al., "CurricularFace", arXiv:2004.00288, equations 4 to 7.

    The margin fraction of a warm-up also applies to the other classes.

    Parameters
    ----------
    guarded_threshold
        Whether the threshold of a hard class is psi with the guard; false uses cos(t_y + m2)
        without the guard, as the authors' code does. The two differ where t_y > pi - m2: there the
        guarded threshold makes all classes hard.
    """

    def __init__(
        self,
        *sizes: int,
        m2: Angle = 0.5,
        momentum: Momentum = 0.01,
        guarded_threshold: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._m2, self._momentum, self._guarded_threshold = m2, momentum, guarded_threshold
        self.t = create_state(self, "t", (1,), mx.init.Zero())

    def update_statistics(self, embedding: mx.nd.NDArray, label: mx.nd.NDArray) -> None:
        centre = mx.nd.take(self.weight.list_data()[0], label, mode="clip")
        cosine = (normalised(mx.nd, embedding) * normalised(mx.nd, centre)).sum(axis=1)
        t = self.t.list_data()[0]
        t[:] = t + self._momentum * (self._reduce(cosine, mx.nd.mean) - t)

    def margin(self, F: Any, cosine: Any, embedding: Any, t: Any) -> tuple[Any, Any]:
        return additive_angle(F, cosine, self._m2)

    def columns(self, F: Any, fraction: Any, psi: Any, cosine: Any, t: Any) -> tuple[Any, Any]:
        linear = 1.0 + fraction * (t - 1.0)
        value, slope = [fraction, linear, 0.0], [2.0 * fraction, linear]
        if not self._guarded_threshold:
            unguarded = unguarded_angle(F, cosine, self._m2)
            psi = cosine + F.broadcast_mul(unguarded - cosine, fraction)
        # A class with a cosine equal to psi is not hard.
        return psi + ROUNDING, column_numbers(F, fraction, value, slope, 1.0)
