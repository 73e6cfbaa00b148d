# SPDX-License-Identifier: Apache-2.0
"""CosFace, also known as AM-Softmax: a softmax loss with a margin on the cosine."""

from typing import Any

from heads.margin_softmax import MarginSoftmax
from heads.margins import additive_cosine
from heads.settings import Cosine


class CosFace(MarginSoftmax):
    """Softmax with m3 subtracted from the cosine to the true class.

    logits s c_j; true class: s (c - m3)

    Wang et al., "CosFace", arXiv:1801.09414, equation 4.

    Symbols: c_j is the cosine of an embedding to the centre of class j; c is its cosine to the
    centre of the true class; s is ``scale``.

    The loss AM-Softmax, arXiv:1801.05599, has the same equation.
    """

    def __init__(self, *sizes: int, m3: Cosine = 0.35, **kwargs: Any) -> None:
        super().__init__(*sizes, **kwargs)
        self._m3 = m3

    def margin(self, F: Any, cosine: Any, embedding: Any) -> tuple[Any, Any]:
        return additive_cosine(F, cosine, self._m3)
