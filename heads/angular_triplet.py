# SPDX-License-Identifier: Apache-2.0
"""Triplet loss on the angles between embeddings."""

import math
from typing import Annotated, Any

from heads.margins import clipped_angle
from heads.triplet import Triplet
from ranges import Within

Radians = Annotated[float, Within(0, math.pi, "the usual margin is 0.35 radians", open_low=True)]


class AngularTriplet(Triplet):
    """Triplet loss on the angles between embeddings.

    as triplet, with d = arccos(x . y), the angle in radians between the normalised embeddings x
    and y

    Schroff et al., "FaceNet", arXiv:1503.03832, equation 3, with angles instead of squared
    distances as in Deng et al., "ArcFace", arXiv:1801.07698, equation 7.

    The gradient of an angle is 0 within 4.9e-4 radians of 0 and pi, where the slope of arccos would
    be infinite.

    Parameters
    ----------
    margin
        Angle in radians by which an image of another person must be farther from the anchor than an
        image of the same person.
    """

    def __init__(self, *sizes: int, margin: Radians = 0.35, **kwargs: Any) -> None:
        super().__init__(*sizes, margin=margin, **kwargs)

    def _distances(self, F: Any, unit: Any, cosine: Any) -> Any:
        return clipped_angle(F, cosine)

    def _row_distances(self, F: Any, one: Any, other: Any) -> Any:
        return clipped_angle(F, F.sum(one * other, axis=1))
