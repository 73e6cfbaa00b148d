# SPDX-License-Identifier: Apache-2.0
"""NormFace: softmax on scaled cosines."""

from heads.margin_softmax import MarginSoftmax


class NormFace(MarginSoftmax):
    """Softmax on scaled cosines without a margin.

    logits s c_j

    Wang et al., "NormFace", arXiv:1704.06369, equation 6.

    Symbols: c_j is the cosine of an embedding to the centre of class j; s is ``scale``.
    """
