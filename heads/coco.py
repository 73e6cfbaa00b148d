# SPDX-License-Identifier: Apache-2.0
"""COCO: softmax on cosines with a scale computed from the number of classes."""

import math
from typing import Annotated, Any

from heads.margin_softmax import MarginSoftmax
from ranges import at_least

Scale = Annotated[float, at_least(0, "with 0 the scale is computed from the number of classes")]


class COCO(MarginSoftmax):
    """Softmax on cosines to the class centroids, with a scale computed from the number of classes.

    logits s c_j, s = log(C - 1) / 2 + 3 if scale is 0, else s = scale

    Liu et al., "Rethinking Feature Discrimination and Polymerization for Large-scale Recognition",
    arXiv:1710.00870, equations 5 to 7.

    Symbols: c_j is the cosine of an embedding to the centroid of class j; C is the number of
    classes.

    The centroids are learned. With 87,020 classes the computed scale is 8.69, and an image with
    cosine 1 to its own centroid and 0 to all others still has a loss of 2.75. For training sets of
    that size, set the scale to 21.475, the value of the authors' face network.

    Parameters
    ----------
    scale
        Factor on the cosines, alpha in the paper. 0 means that the factor is computed from the
        number of classes: 8.7 for 87,020 classes.
    """

    def __init__(
        self, num_classes: int, embedding_size: int, *, scale: Scale = 0.0, **kwargs: Any
    ) -> None:
        scale = scale or 0.5 * math.log(max(num_classes - 1, 1)) + 3
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
