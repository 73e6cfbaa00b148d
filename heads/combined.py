# SPDX-License-Identifier: Apache-2.0
"""Softmax loss that combines the margins of SphereFace, ArcFace and CosFace."""

from typing import Any

from heads.margin_softmax import MarginSoftmax
from heads.margins import combined_margin
from heads.settings import Angle, Cosine, Factor


class Combined(MarginSoftmax):
    """Softmax with three margins on the true class: m1 and m2 on the angle, m3 on the cosine.

    logits s c_j; true class: s ((-1)^k cos(m1 t + m2) - 2 k - m3), k = floor((m1 t + m2) / pi)

    Deng et al., "ArcFace", arXiv:1801.07698, equation 4.

    Symbols: c_j is the cosine of an embedding to the centre of class j; c and t are its cosine and
    angle to the centre of the true class; s is ``scale``.

    With m1 = 1 the logit of the true class is s (cos(t + m2) - m3), with the guard of
    `heads.margins.additive_angle`.
    """

    def __init__(
        self, *sizes: int, m1: Factor = 1.0, m2: Angle = 0.3, m3: Cosine = 0.2, **kwargs: Any
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._margins: dict[str, Any] = {"m1": m1, "m2": m2, "m3": m3}

    def margin(self, F: Any, cosine: Any, embedding: Any) -> tuple[Any, Any]:
        return combined_margin(F, cosine, **self._margins)
