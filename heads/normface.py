# SPDX-License-Identifier: Apache-2.0
"""NormFace."""

from heads.margin_softmax import MarginSoftmax
from heads.settings import Scale


class NormFace(MarginSoftmax):
    """Softmax on scaled cosines without a margin.

    s c_j

    Wang et al., "NormFace", arXiv:1704.06369, equation 6.
    """

    def __init__(
        self, num_classes: int, embedding_size: int, *, scale: Scale = 64.0, **kwargs
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
