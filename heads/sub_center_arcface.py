# SPDX-License-Identifier: Apache-2.0
"""Sub-center ArcFace."""

from typing import Annotated

from heads.arcface import ArcFace
from heads.settings import Angle, Scale
from ranges import Within


class SubCenterArcFace(ArcFace):
    """ArcFace in which the nearest of several centres of a class counts.

    arcface with c_j = max over k of c_jk, of the K centres of class j

    Deng et al., "Sub-center ArcFace", ECCV 2020, equations 2 and 3.

    Wrong labels can so find a centre of their own. Of centres that are equally near the first
    counts, and it alone has a gradient.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        # The fused operator holds 96 classes in one tile.
        sub_centers: Annotated[int, Within(1, 96, "3 is usual")] = 3,
        m2: Angle = 0.5,
        scale: Scale = 64.0,
        easy_margin: bool = False,
        **kwargs,
    ) -> None:
        kwargs |= {"m2": m2, "scale": scale, "easy_margin": easy_margin}
        super().__init__(num_classes, embedding_size, sub_centers=sub_centers, **kwargs)
