# SPDX-License-Identifier: Apache-2.0
"""Sub-center ArcFace: several centres per class, so that wrong labels find one of their own."""

from heads.checks import check_count, check_flag
from heads.margin_softmax import MarginSoftmax, check_margins, check_size

MOST = 96  # centres of a class that the fused operator holds in one tile


def sub_center_arcface(
    num_classes: int,
    embedding_size: int,
    *,
    sub_centers: int = 3,
    m2: float = 0.5,
    scale: float = 64.0,
    easy_margin: bool = False,
) -> MarginSoftmax:
    """Build an ArcFace in which the nearest of several centres of a class counts.

    `arcface` with cos t_j = max over k of cos t_jk, of the centres k of class j. Of centres that
    are equally near the first counts, and it alone has a gradient.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    sub_centers
        Centres of each class K, 1 to 96; ``weight`` is (C K, E), those of a class side by side.
    m2
        Margin added to the angle in radians, 0 to pi/2.
    scale
        Factor on the cosines, above 0.
    easy_margin
        Whether the margin is confined to angles below pi/2.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Deng et al., "Sub-center ArcFace", ECCV 2020, equations 2 and 3.
    """
    sub_centers = check_count("head.sub_centers", sub_centers, 1, advice="3 is usual")
    if sub_centers > MOST:
        raise ValueError(f"head.sub_centers: at most {MOST}, got {sub_centers}; 3 is usual")
    return MarginSoftmax(
        **check_size(num_classes, embedding_size, scale),
        m2=check_margins(m2=m2)["m2"],
        easy_margin=check_flag("head.easy_margin", easy_margin),
        sub_centers=sub_centers,
    )
