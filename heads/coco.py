# SPDX-License-Identifier: Apache-2.0
"""COCO."""

import math
from typing import Annotated, Any

from heads.margin_softmax import MarginSoftmax
from ranges import at_least

Scale = Annotated[float, at_least(0, "0 computes it from the number of classes")]


class COCO(MarginSoftmax):
    """Softmax on cosines to the class centroids, with a scale computed from their number.

    s c_j, s = log(C - 1) / 2 + 3 unless it is set

    Liu et al., "Rethinking Feature Discrimination and Polymerization for Large-scale Recognition",
    arXiv:1710.00870, equations 5 to 7.

    The centroids are learned. With 87,020 people the automatic scale leaves a loss of 2.75 for an
    image on its centroid. Set 21.475 for sets of that size, as the authors' face network does.

    Parameters
    ----------
    scale
        Factor s on the cosines, alpha in the paper; 0 computes it from the number of classes
        (8.7 for 87,020 people).
    """

    def __init__(
        self, num_classes: int, embedding_size: int, *, scale: Scale = 0.0, **kwargs: Any
    ) -> None:
        scale = scale or 0.5 * math.log(max(num_classes - 1, 1)) + 3
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
