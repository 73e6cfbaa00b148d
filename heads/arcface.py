# SPDX-License-Identifier: Apache-2.0
"""ArcFace: a softmax loss with a margin on the angle to the true class."""

from typing import Any

from heads.margin_softmax import MarginSoftmax
from heads.margins import additive_angle
from heads.settings import Angle


class ArcFace(MarginSoftmax):
    """Softmax with m2 added to the angle to the true class.

    logits s c_j; true class: s cos(t + m2), with a guard: s (c - m2 sin m2) where t > pi - m2

    Deng et al., "ArcFace", arXiv:1801.07698, equation 3.

    Symbols: c_j is the cosine of an embedding to the centre of class j; c and t are its cosine and
    angle to the centre of the true class; s is ``scale``.

    The guard comes from the code that the authors published in 2018.
    `heads.margins.additive_angle` gives the reason for the guard.
    """

    def __init__(
        self, *sizes: int, m2: Angle = 0.5, easy_margin: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._m2, self._easy_margin = m2, easy_margin

    def margin(self, F: Any, cosine: Any, embedding: Any) -> tuple[Any, Any]:
        return additive_angle(F, cosine, self._m2, self._easy_margin)
