# SPDX-License-Identifier: Apache-2.0
"""CurricularFace: ArcFace with a growing weight on hard classes."""

from typing import Any

import mxnet as mx

from heads.cross_entropy import column_numbers, normalised
from heads.margin_softmax import FILTERED_ELSEWHERE, MarginSoftmax
from heads.margins import ROUNDING, additive_angle, unguarded_angle
from heads.settings import Angle, Momentum
from heads.statistics import create_state


class CurricularFace(MarginSoftmax):
    """ArcFace with a weight on hard classes that grows in the course of training.

    logits s c_j, or s c_j (t + c_j) where c_j > psi, t = running mean of c;
    true class: s psi, psi as in arcface

    Huang et al., "CurricularFace", arXiv:2004.00288, equations 4 to 7.

    Symbols: c_j is the cosine of an embedding to the centre of class j; c is its cosine to the
    centre of the true class; psi is c after the margin; s is ``scale``. A class j is hard if c_j >
    psi.

    In a warm-up of the margin, ``margin_fraction`` also scales the change of the logits of the hard
    classes.

    Parameters
    ----------
    guarded_threshold
        Whether the cosine above which a class is hard includes the guard of `arcface`. If false,
        this threshold is cos(a + m2), as in the authors' code, where a is the angle to the true
        class. The setting matters only where a > pi - m2: with the guard all classes are hard
        there.
    """

    refused_settings = FILTERED_ELSEWHERE

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
        self.update_sharded_statistics(embedding, label, cosine)

    def update_sharded_statistics(self, embedding: Any, label: Any, score: Any) -> None:
        t = self.t.list_data()[0]
        t[:] = t + self._momentum * (self._reduce(score, mx.nd.mean) - t)

    def margin(self, F: Any, cosine: Any, embedding: Any, t: Any) -> tuple[Any, Any]:
        return additive_angle(F, cosine, self._m2)

    def columns(self, F: Any, fraction: Any, psi: Any, cosine: Any, t: Any) -> tuple[Any, Any]:
        linear = 1.0 + fraction * (t - 1.0)
        value, slope = [fraction, linear, 0.0], [2.0 * fraction, linear]
        if not self._guarded_threshold:
            unguarded = unguarded_angle(F, cosine, self._m2)
            psi = cosine + F.broadcast_mul(unguarded - cosine, fraction)
        # Raise the threshold by the rounding error, so that a class whose cosine equals psi is not
        # hard.
        return psi + ROUNDING, column_numbers(F, fraction, value, slope, 1.0)
