# SPDX-License-Identifier: Apache-2.0
"""COCO: a softmax on scaled cosines, the scale by the number of classes."""

import math

from heads.checks import check_number
from heads.margin_softmax import MarginSoftmax, check_size


def coco(num_classes: int, embedding_size: int, *, scale: float = 0.0) -> MarginSoftmax:
    """Build a softmax on scaled cosines to the centroids of the classes.

    -log softmax_y of the logits scale cos t_j, t_j being the angle to the centroid of class j.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    scale
        Factor on the cosines, alpha in the paper; 0 takes log(C - 1) / 2 + 3 (8.7 for 87,020
        people), which is little for many classes: see below.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Liu et al., "Rethinking Feature Discrimination and Polymerization for Large-scale Recognition",
    arXiv:1710.00870, equations 5 to 7. Centroids are learned, as its authors do where there are
    more classes than a batch can show. At the automatic scale for 87,020 people an image on its
    centroid, at right angles to all others, still has a loss of 2.75. The authors' own face network
    has a scale of 21.475, where that is 0.00004: take that for sets of that size.
    """
    size = check_size(num_classes, embedding_size, 1.0)
    scale = check_number("head.scale", scale, 0, math.inf, advice="0 goes by the classes")
    return MarginSoftmax(**size | {"scale": scale or 0.5 * math.log(max(num_classes - 1, 1)) + 3})
