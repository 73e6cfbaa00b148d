# SPDX-License-Identifier: Apache-2.0
"""Margins alike for every image: NormFace, SphereFace, CosFace, ArcFace and all combined."""

from heads.checks import check_flag
from heads.margin_softmax import MarginSoftmax, check_margins, check_size


def normface(num_classes: int, embedding_size: int, *, scale: float = 64.0) -> MarginSoftmax:
    """Build a softmax on scaled cosines without margin.

    -log softmax_y of the logits scale cos t_j, t_j being the angle between the embedding and the
    centre of class j, y the true class.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    scale
        Factor on the cosines, above 0.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Wang et al., "NormFace", arXiv:1704.06369, equation 6. The authors learn the scale, from 10 on;
    here it stays as it is set.
    """
    return _build(num_classes, embedding_size, scale=scale)


def sphereface(
    num_classes: int, embedding_size: int, *, m1: float = 1.35, scale: float = 64.0
) -> MarginSoftmax:
    """Build a softmax with the angle to the true class multiplied by m1.

    -log softmax_y of the logits scale cos t_j, that of the true class y
    scale ((-1)^k cos(m1 t_y) - 2 k), k = floor(m1 t_y / pi).

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    m1
        Factor on the angle, above 0 and at most 4.
    scale
        Factor on the cosines, above 0.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Liu et al., "SphereFace", arXiv:1704.08063, equation 6, on normalised and scaled embeddings
    and not annealed; see `heads.margins.multiplied_angle`.
    """
    return _build(num_classes, embedding_size, m1=m1, scale=scale)


def cosface(
    num_classes: int, embedding_size: int, *, m3: float = 0.35, scale: float = 64.0
) -> MarginSoftmax:
    """Build a softmax with m3 taken off the cosine to the true class.

    -log softmax_y of the logits scale cos t_j, that of the true class y scale (cos t_y - m3).

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    m3
        Margin taken off the cosine, 0 to 1.
    scale
        Factor on the cosines, above 0.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Wang et al., "CosFace", arXiv:1801.09414, equation 4.
    """
    return _build(num_classes, embedding_size, m3=m3, scale=scale)


def arcface(
    num_classes: int,
    embedding_size: int,
    *,
    m2: float = 0.5,
    scale: float = 64.0,
    easy_margin: bool = False,
) -> MarginSoftmax:
    """Build a softmax with m2 added to the angle to the true class.

    -log softmax_y of the logits scale cos t_j, that of the true class y scale cos(t_y + m2);
    where t_y > pi - m2 it is scale (cos t_y - m2 sin m2).

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
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
    Deng et al., "ArcFace", arXiv:1801.07698, equation 3; see `heads.margins.additive_angle`.
    """
    return _build(num_classes, embedding_size, m2=m2, scale=scale, easy_margin=easy_margin)


def combined(
    num_classes: int,
    embedding_size: int,
    *,
    m1: float = 1.0,
    m2: float = 0.3,
    m3: float = 0.2,
    scale: float = 64.0,
) -> MarginSoftmax:
    """Build a softmax with all three margins on the true class.

    -log softmax_y of the logits scale cos t_j, that of the true class y
    scale ((-1)^k cos(m1 t_y + m2) - 2 k - m3), k = floor((m1 t_y + m2) / pi); with m1 = 1
    scale (cos(t_y + m2) - m3), with `arcface`'s line where t_y > pi - m2.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    m1
        Factor on the angle, above 0 and at most 4.
    m2
        Margin added to the angle in radians, 0 to pi/2.
    m3
        Margin taken off the cosine, 0 to 1.
    scale
        Factor on the cosines, above 0.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Deng et al., "ArcFace", arXiv:1801.07698, equation 4; see `heads.margins.combined_margin`.
    """
    return _build(num_classes, embedding_size, m1=m1, m2=m2, m3=m3, scale=scale)


def _build(num_classes, embedding_size, *, scale, easy_margin=False, **margins):
    return MarginSoftmax(
        **check_size(num_classes, embedding_size, scale),
        **check_margins(**margins),
        easy_margin=check_flag("head.easy_margin", easy_margin),
    )
