# SPDX-License-Identifier: Apache-2.0
"""Triplet loss on angles."""

import math
from typing import Annotated, Any

from heads.margins import clipped_angle
from heads.triplet import Triplet
from ranges import Within

Radians = Annotated[float, Within(0, math.pi, "it is in radians, 0.35 is usual", open_low=True)]


class AngularTriplet(Triplet):
    """Triplet loss on the angles between embeddings.

    triplet with d = arccos(x . y) in radians, of the normalised embeddings

    Schroff et al., "FaceNet", arXiv:1503.03832, equation 3, with the angle as Deng et al.,
    "ArcFace", arXiv:1801.07698, have it in their triplet loss, equation 7.

    The slope is 0 within 5e-4 of 0 and pi.

    Parameters
    ----------
    margin
        Angle by which a negative must be farther than a positive, in radians.
    """

    def __init__(self, *sizes: int, margin: Radians = 0.35, **kwargs: Any) -> None:
        super().__init__(*sizes, margin=margin, **kwargs)

    def _distances(self, F: Any, unit: Any, cosine: Any) -> Any:
        return clipped_angle(F, cosine)

    def _row_distances(self, F: Any, one: Any, other: Any) -> Any:
        return clipped_angle(F, F.sum(one * other, axis=1))
