# SPDX-License-Identifier: Apache-2.0
"""ArcFace with the inter-loss."""

import math

from heads.arcface import ArcFace
from heads.cross_entropy import normalised
from heads.margins import clipped_angle
from heads.settings import Angle, Scale, TermWeight


class Inter(ArcFace):
    """ArcFace with a push of the true class's centre away from all others.

    arcface; - inter_weight / (pi (C - 1)) sum over j of the angle between centres y and j

    Deng et al., "ArcFace", arXiv:1801.07698, equation 6 (inter-loss), there with m2 = 0.

    A (B, C) matrix is built: the sum goes over pairs of classes. The slope of an angle is 0 within
    4.5e-4 radians of 0 and pi.

    Parameters
    ----------
    inter_weight
        Factor on the mean angle.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        m2: Angle = 0.5,
        scale: Scale = 64.0,
        inter_weight: TermWeight = 1.0,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, m2=m2, scale=scale, **kwargs)
        self._inter_weight = inter_weight

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight):
        loss, target = super().hybrid_forward(F, embedding, label, margin_fraction, weight)
        unit = normalised(F, weight)
        cosine = F.FullyConnected(  # (B, C)
            F.take(unit, label, mode="clip"), unit, num_hidden=self._num_classes, no_bias=True
        )
        angle = clipped_angle(F, cosine)
        total = F.sum(angle, axis=1) - F.pick(angle, label, axis=1)
        return loss - self._inter_weight / (math.pi * (self._num_classes - 1)) * total, target
