# SPDX-License-Identifier: Apache-2.0
"""SphereFace: a softmax loss with a factor on the angle to the true class."""

from typing import Any

from heads.margin_softmax import MarginSoftmax
from heads.margins import combined_margin
from heads.settings import Factor


class SphereFace(MarginSoftmax):
    """Softmax with the angle to the true class multiplied by m1.

    logits s c_j; true class: s ((-1)^k cos(m1 t) - 2 k), k = floor(m1 t / pi)

    Liu et al., "SphereFace", arXiv:1704.08063, equation 6.

    Symbols: c_j is the cosine of an embedding to the centre of class j; c and t are its cosine and
    angle to the centre of the true class; s is ``scale``.

    Here the embeddings are normalised and the margin is not annealed. The loss of the paper, with
    unnormalised embeddings and annealing, is `a_softmax`.
    """

    def __init__(self, *sizes: int, m1: Factor = 1.35, **kwargs: Any) -> None:
        super().__init__(*sizes, **kwargs)
        self._m1 = m1

    def margin(self, F: Any, cosine: Any, embedding: Any) -> tuple[Any, Any]:
        return combined_margin(F, cosine, m1=self._m1)
