# SPDX-License-Identifier: Apache-2.0
"""L2-constrained softmax."""

import math
from typing import Annotated, Any

from heads.head import require
from heads.softmax import Softmax
from ranges import at_least

MIN_PROBABILITY = 0.9  # of the true class, where its score is the largest possible
Scale = Annotated[float, at_least(0, "0 computes it from the number of classes")]


class L2Softmax(Softmax):
    """Softmax on L2-normalised embeddings, rescaled, with unnormalised class vectors.

    s w_j . x / |x| + b_j, s = log(0.9 (C - 2) / 0.1) unless it is set

    Ranjan et al., "L2-constrained Softmax Loss", arXiv:1703.09507, equations 3 and 7.

    Parameters
    ----------
    scale
        Length of the embeddings, alpha in the paper; 0 computes the smallest length with which a
        class reaches a probability of 0.9 (13.6 for 85,742 people).
    """

    def __init__(
        self, num_classes: int, embedding_size: int, *, scale: Scale = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        least = math.log(max(MIN_PROBABILITY * (num_classes - 2) / (1 - MIN_PROBABILITY), 2.0))
        advice = f"below {least:.3g} no class of {num_classes} reaches a probability of 0.9"
        if scale:
            require("head.scale", float, at_least(round(least, 3), advice), scale)
        self._scale = scale or least

    def _rows(self, embedding: Any, unit: Any) -> Any:
        return unit * self._scale
