# SPDX-License-Identifier: Apache-2.0
"""SphereFace."""

from typing import Any

from heads.margin_softmax import MarginSoftmax
from heads.margins import combined_margin
from heads.settings import Factor


class SphereFace(MarginSoftmax):
    """Softmax with the angle to the true class multiplied by m1.

    s c_j; true class: s ((-1)^k cos(m1 t) - 2 k), k = floor(m1 t / pi)

    Liu et al., "SphereFace", arXiv:1704.08063, equation 6.

    Embeddings are normalised and scaled, and the margin is not annealed: `a_softmax` is the loss
    of the paper in both.
    """

    def __init__(self, *sizes: int, m1: Factor = 1.35, **kwargs: Any) -> None:
        super().__init__(*sizes, **kwargs)
        self._m1 = m1

    def margin(self, F: Any, cosine: Any, embedding: Any) -> tuple[Any, Any]:
        return combined_margin(F, cosine, m1=self._m1)
