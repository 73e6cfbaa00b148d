# SPDX-License-Identifier: Apache-2.0
"""Sub-center ArcFace: ArcFace with several centres per class."""

from typing import Annotated, Any

from heads.arcface import ArcFace
from ranges import Within

# At most 96: all centres of a class must fit into one tile of the fused operator, and a tile has 96
# rows.
SubCenters = Annotated[int, Within(1, 96, "the usual number of centres is 3")]


class SubCenterArcFace(ArcFace):
    """ArcFace with several centres per class; the nearest centre gives the score of the class.

    as arcface, with c_j = max over k of c_jk, the cosines to the K centres of class j

    Deng et al., "Sub-center ArcFace", ECCV 2020, equations 2 and 3.

    Images with wrong labels can form a cluster at a separate centre of their class. If several
    centres of a class are equally near, only the first one receives a gradient.

    Parameters
    ----------
    sub_centers
        Number of centres of each class.
    """

    def __init__(self, *sizes: int, sub_centers: SubCenters = 3, **kwargs: Any) -> None:
        super().__init__(*sizes, sub_centers=sub_centers, **kwargs)
