# SPDX-License-Identifier: Apache-2.0
"""All three margins together."""

from heads.margin_softmax import MarginSoftmax
from heads.margins import combined_margin
from heads.settings import Angle, Cosine, Factor, Scale


class Combined(MarginSoftmax):
    """Softmax with three margins on the true class: m1, m2 and m3.

    s c_j; true class: s ((-1)^k cos(m1 t + m2) - 2 k - m3), k = floor((m1 t + m2) / pi)

    Deng et al., "ArcFace", arXiv:1801.07698, equation 4.

    With m1 = 1 it is s (cos(t + m2) - m3) with the guard of `heads.margins.additive_angle`.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        m1: Factor = 1.0,
        m2: Angle = 0.3,
        m3: Cosine = 0.2,
        scale: Scale = 64.0,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self._margins = {"m1": m1, "m2": m2, "m3": m3}

    def margin(self, F, cosine, embedding):
        return combined_margin(F, cosine, **self._margins)
