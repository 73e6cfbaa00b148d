# SPDX-License-Identifier: Apache-2.0
"""CosFace, also known as AM-Softmax."""

from heads.margin_softmax import MarginSoftmax
from heads.margins import additive_cosine
from heads.settings import Cosine, Scale


class CosFace(MarginSoftmax):
    """Softmax with m3 subtracted from the cosine to the true class.

    s c_j; true class: s (c - m3)

    Wang et al., "CosFace", arXiv:1801.09414, equation 4.

    AM-Softmax, arXiv:1801.05599, is the same loss.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        m3: Cosine = 0.35,
        scale: Scale = 64.0,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self._m3 = m3

    def margin(self, F, cosine, embedding):
        return additive_cosine(F, cosine, self._m3)
