# SPDX-License-Identifier: Apache-2.0
"""NormFace."""

from heads.margin_softmax import MarginSoftmax


class NormFace(MarginSoftmax):
    """Softmax on scaled cosines without a margin.

    s c_j

    Wang et al., "NormFace", arXiv:1704.06369, equation 6.
    """
