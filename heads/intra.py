# SPDX-License-Identifier: Apache-2.0
"""ArcFace with the intra-loss, which pulls embeddings to the centre of their class."""

import math
from typing import Any

from heads.arcface import ArcFace
from heads.cross_entropy import normalised
from heads.head import NOT_SHARDED
from heads.margins import clipped_angle
from heads.settings import TermWeight


class Intra(ArcFace):
    """ArcFace with a penalty on the angle between an embedding and the centre of its class.

    arcface loss + intra_weight t / pi, t the angle to the centre of the true class

    Deng et al., "ArcFace", arXiv:1801.07698, equation 5 (intra-loss; the paper sets m2 = 0).

    The gradient of the angle is 0 within 4.9e-4 radians of 0 and pi, where the slope of arccos is
    infinite.

    Parameters
    ----------
    intra_weight
        Factor on angle / pi for the angle between an embedding and the centre of its class.
    """

    refused_settings = NOT_SHARDED

    def __init__(self, *sizes: int, intra_weight: TermWeight = 1.0, **kwargs: Any) -> None:
        super().__init__(*sizes, **kwargs)
        self._intra_weight = intra_weight

    def hybrid_forward(
        self, F: Any, embedding: Any, label: Any, margin_fraction: Any, weight: Any, **state: Any
    ) -> tuple[Any, Any]:
        loss, target = super().hybrid_forward(F, embedding, label, margin_fraction, weight)
        own = normalised(F, F.take(weight, label, mode="clip"))
        angle = clipped_angle(F, F.sum(normalised(F, embedding) * own, axis=1))
        return loss + self._intra_weight / math.pi * angle, target
