# SPDX-License-Identifier: Apache-2.0
"""ArcFace with the intra-loss."""

import math

from heads.arcface import ArcFace
from heads.cross_entropy import normalised
from heads.margins import clipped_angle
from heads.settings import Angle, Scale, TermWeight


class Intra(ArcFace):
    """ArcFace with a pull by the angle to the centre of the true class.

    arcface; + intra_weight t / pi

    Deng et al., "ArcFace", arXiv:1801.07698, equation 5 (intra-loss), there with m2 = 0.

    The slope of that angle is 0 within 4.5e-4 radians of 0 and pi, where arccos has none that is
    finite: the second term alone does not pull an image nearer to its centre than that.

    Parameters
    ----------
    intra_weight
        Factor on the angle.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        m2: Angle = 0.5,
        scale: Scale = 64.0,
        intra_weight: TermWeight = 1.0,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, m2=m2, scale=scale, **kwargs)
        self._intra_weight = intra_weight

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight):
        loss, target = super().hybrid_forward(F, embedding, label, margin_fraction, weight)
        own = normalised(F, F.take(weight, label, mode="clip"))
        angle = clipped_angle(F, F.sum(normalised(F, embedding) * own, axis=1))
        return loss + self._intra_weight / math.pi * angle, target
