# SPDX-License-Identifier: Apache-2.0
"""Sub-center ArcFace."""

from typing import Annotated, Any

from heads.arcface import ArcFace
from ranges import Within

# The fused operator processes 96 rows of centres in one tile.
SubCenters = Annotated[int, Within(1, 96, "3 is usual")]


class SubCenterArcFace(ArcFace):
    """ArcFace with several centres per class, of which the nearest one counts.

    arcface with c_j = max over k of c_jk, of the K centres of class j

    Deng et al., "Sub-center ArcFace", ECCV 2020, equations 2 and 3.

    Images with wrong labels can gather at a centre of their own. If several centres are equally
    near, only the first one counts and receives a gradient.
    """

    def __init__(self, *sizes: int, sub_centers: SubCenters = 3, **kwargs: Any) -> None:
        super().__init__(*sizes, sub_centers=sub_centers, **kwargs)
