# SPDX-License-Identifier: Apache-2.0
"""Triplet loss on angles."""

import math
from typing import Annotated

from heads.margins import clipped_angle
from heads.triplet import Mining, Triplet
from ranges import Within


class AngularTriplet(Triplet):
    """Triplet loss by the angles between embeddings.

    triplet with d = arccos(x . y) in radians, of the normalised embeddings

    Schroff et al., "FaceNet", arXiv:1503.03832, equation 3, with the angle as Deng et al.,
    "ArcFace", arXiv:1801.07698, have it in their triplet loss, equation 7.

    The slope is 0 within 5e-4 of 0 and pi.

    Parameters
    ----------
    margin
        Angle by which a negative is to be farther, in radians.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: Annotated[
            float, Within(0, math.pi, "it is in radians, 0.35 is usual", open_low=True)
        ] = 0.35,
        mining: Mining = "semi_hard",
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, margin=margin, mining=mining, **kwargs)

    def _distances(self, F, unit, cosine):
        return clipped_angle(F, cosine)

    def _between(self, F, one, other):
        return clipped_angle(F, F.sum(one * other, axis=1))
