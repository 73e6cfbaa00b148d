# SPDX-License-Identifier: Apache-2.0
"""ArcFace with the inter-loss, which pushes class centres apart."""

import math
from typing import Any

from heads.arcface import ArcFace
from heads.cross_entropy import normalised
from heads.head import NOT_SHARDED
from heads.margins import clipped_angle
from heads.settings import TermWeight


class Inter(ArcFace):
    """ArcFace with a push of the centre of the true class away from all other class centres.

    arcface loss - inter_weight / (pi (C - 1)) sum over j of the angle between centres y and j

    Deng et al., "ArcFace", arXiv:1801.07698, equation 6 (inter-loss; the paper sets m2 = 0).

    Symbols: C is the number of classes; y is the true class.

    This loss allocates a matrix of batch size times number of classes, because it needs the angles
    between the centre of each image's class and all other class centres. The gradient of an angle
    is 0 within 4.9e-4 radians of 0 and pi.

    Parameters
    ----------
    inter_weight
        Factor on the mean of angle / pi over the angles between the centre of the true class and
        the other class centres.
    """

    refused_settings = NOT_SHARDED

    def __init__(self, *sizes: int, inter_weight: TermWeight = 1.0, **kwargs: Any) -> None:
        super().__init__(*sizes, **kwargs)
        self._inter_weight = inter_weight

    def hybrid_forward(
        self, F: Any, embedding: Any, label: Any, margin_fraction: Any, weight: Any, **state: Any
    ) -> tuple[Any, Any]:
        loss, target = super().hybrid_forward(F, embedding, label, margin_fraction, weight)
        unit, classes = normalised(F, weight), self.num_classes
        own = F.take(unit, label, mode="clip")
        cosine = F.FullyConnected(own, unit, num_hidden=classes, no_bias=True)
        angle = clipped_angle(F, cosine)
        total = F.sum(angle, axis=1) - F.pick(angle, label, axis=1)
        return loss - self._inter_weight / (math.pi * (classes - 1)) * total, target
