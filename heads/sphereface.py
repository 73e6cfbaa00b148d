# SPDX-License-Identifier: Apache-2.0
"""SphereFace."""

from heads.margin_softmax import MarginSoftmax
from heads.margins import combined_margin
from heads.settings import Factor, Scale


class SphereFace(MarginSoftmax):
    """Softmax with the angle to the true class multiplied by m1.

    s c_j; true class: s ((-1)^k cos(m1 t) - 2 k), k = floor(m1 t / pi)

    Liu et al., "SphereFace", arXiv:1704.08063, equation 6.

    On normalised and scaled embeddings, and not annealed: `heads.margins.multiplied_angle`.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        m1: Factor = 1.35,
        scale: Scale = 64.0,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self._m1 = m1

    def margin(self, F, cosine, embedding):
        return combined_margin(F, cosine, m1=self._m1)
