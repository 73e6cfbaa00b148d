# SPDX-License-Identifier: Apache-2.0
"""Margin functions: they replace the cosine of the true class.

Each margin function takes the cosine c = cos t, where t is the angle between an embedding and the
centre of its class. It returns the pair (psi, dpsi): psi replaces c, and dpsi is the slope dpsi/dc.
Arrays have one float32 value per image, shape (B,). Angles are in radians. ``F`` is ``mx.nd`` or
``mx.sym``.

The caller detaches the cosine and uses dpsi as the gradient. The gradients of arccos and of the
square root, which are infinite at c = 1 and c = -1, are therefore never computed.
"""

import math
from typing import Any

# A cosine is clipped to this absolute value before a division by sin t: sin t is then at least
# 4.9e-4 in float32. The limit bounds the slope. The limit hardly changes the training step, because
# the gradient of the normalisation multiplies the slope by sin t again.
COSINE_LIMIT = 1.0 - 1e-7
# An angle that includes its margin is kept at least this many radians away from 0 and from pi, as
# in AdaFace's code.
ANGLE_LIMIT = 1e-3
# Largest rounding error of a float32 cosine, used as a tolerance in comparisons. The easy margin
# jumps at a right angle. In CurricularFace and SV-Softmax, the logit of another class jumps where
# its cosine exceeds psi. Plain and fused operators round differently: without the tolerance, their
# losses would differ at these two jumps.
ROUNDING = 5e-7


def additive_cosine(F: Any, cosine: Any, m3: float) -> tuple[Any, Any]:
    """Subtract m3 from the cosine c of the true class: psi = c - m3."""
    return cosine - m3, F.ones_like(cosine)


def additive_angle(F: Any, cosine: Any, m2: float, easy_margin: bool = False) -> tuple[Any, Any]:
    """Add m2 to the angle t of the true class: psi = cos(t + m2), with a guard beyond pi.

    For t > pi - m2, cos(t + m2) would rise again as t grows. There the guard applies:
    psi = c - m2 sin m2, with slope 1, as in the code that the authors of ArcFace published. At
    t = pi - m2, psi drops from -1 to -cos m2 - m2 sin m2 (by 0.117 for m2 = 0.5); for larger t, psi
    stays below -1. m2 must be from 0 to pi/2.

    With `easy_margin` the margin applies only to t < pi/2 (see `confined`), and psi jumps from
    -sin m2 up to 0 at t = pi/2.
    """
    if m2 == 0:
        return additive_cosine(F, cosine, 0.0)
    clipped = F.clip(cosine, -1.0, 1.0)  # rounding can make a cosine exceed 1
    inside, inside_slope = _with_added_angle(F, clipped, math.cos(m2), math.sin(m2))
    if easy_margin:
        return confined(F, cosine, inside, inside_slope)
    unguarded, beyond = clipped > -math.cos(m2), clipped - m2 * math.sin(m2)
    slope = F.where(unguarded, inside_slope, F.ones_like(clipped))
    return F.where(unguarded, inside, beyond), slope


def confined(F: Any, cosine: Any, psi: Any, slope: Any) -> tuple[Any, Any]:
    """Remove the margin from angles of pi/2 and above: there psi is the cosine, with slope 1.

    ``psi`` and ``slope`` are the output of a margin function. An angle counts as pi/2 or above if
    its cosine is at most ROUNDING.

    Notes
    -----
    The authors of ArcFace, SV-Softmax and MagFace named this option ``easy_margin`` in the code
    that they published. No equation of their papers has this option.
    """
    applies = cosine > ROUNDING
    return F.where(applies, psi, cosine), F.where(applies, slope, F.ones_like(cosine))


def unguarded_angle(F: Any, cosine: Any, m2: float) -> Any:
    """Return cos(t + m2) of each image, shape (B,), without the guard of `additive_angle`.

    The value rises again as t grows beyond pi - m2.
    """
    return _with_added_angle(F, F.clip(cosine, -1.0, 1.0), math.cos(m2), math.sin(m2))[0]


def additive_angles(
    F: Any, cosine: Any, m2: Any, easy_margin: bool = False
) -> tuple[Any, Any, Any]:
    """Add a separate margin to the angle of each image, with the guard of `additive_angle`.

    Inputs
    ------
    cosine : (B,) float32
        Cosine of each embedding to the centre of its class.
    m2 : (B,) float32
        Margin of each image, from 0 to pi/2.

    Outputs
    -------
    psi, dpsi : (B,) float32 each
    by_margin : (B,) float32
        Slope of psi with respect to the margin: -sin(t + m2), or -(sin m2 + m2 cos m2) where the
        guard applies, or 0 where no margin applies.
    """
    cosine = F.clip(cosine, -1.0, 1.0)
    cos_m, sin_m = F.cos(m2), F.sin(m2)
    inside, inside_slope = _with_added_angle(F, cosine, cos_m, sin_m)
    inside_by_margin = -(_sine(F, cosine) * cos_m + cosine * sin_m)
    if easy_margin:
        psi, slope = confined(F, cosine, inside, inside_slope)
        return psi, slope, inside_by_margin * (cosine > ROUNDING)
    unguarded = cosine > -cos_m
    return (
        F.where(unguarded, inside, cosine - m2 * sin_m),
        F.where(unguarded, inside_slope, F.ones_like(cosine)),
        F.where(unguarded, inside_by_margin, -(sin_m + m2 * cos_m)),
    )


def adaptive_angle(F: Any, cosine: Any, quality: Any, m: float) -> tuple[Any, Any]:
    """Change the angle and the cosine by margins that depend on the quality q of the image.

    psi = cos(t - m q) - m (1 + q). The quality q = -1 gives the margin m on the angle (as ArcFace),
    q = 0 the margin m on the cosine (as CosFace), and q = 1 the margins -m on the angle and 2 m on
    the cosine. The angle t - m q is clipped to the range from ANGLE_LIMIT to pi - ANGLE_LIMIT; the
    slope is 0 where the clip applies.

    Inputs
    ------
    cosine : (B,) float32
        Cosine of each embedding to the centre of its class.
    quality : (B,) float32
        Quality q of each image, from -1 to 1.
    """
    cosine = F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)
    angle = F.arccos(cosine) - m * quality
    clipped = F.clip(angle, ANGLE_LIMIT, math.pi - ANGLE_LIMIT)
    slope = F.where(clipped == angle, F.sin(angle) / _sine(F, cosine), F.zeros_like(cosine))
    return F.cos(clipped) - m * (1.0 + quality), slope


def multiplied_angle(F: Any, cosine: Any, m1: float, m2: float) -> tuple[Any, Any]:
    """Multiply the angle t by m1 and add m2: psi = (-1)^k cos(m1 t + m2) - 2 k.

    k = floor((m1 t + m2) / pi). Where m1 t + m2 exceeds pi, psi continues below -1, so that psi
    decreases without a jump as t grows. The slope with respect to cos t is
    (-1)^k m1 sin(m1 t + m2) / sin t.

    Notes
    -----
    For m2 = 0 and a whole number m1, psi equals that of Liu et al., "SphereFace",
    arXiv:1704.08063, section 3.2.
    """
    angle, fold = _fold(F, F.clip(cosine, -1.0, 1.0), m1, m2)
    psi = _sign(fold) * F.cos(angle) - 2.0 * fold
    # Numerator and denominator of the slope use the limited cosine, so that at t = 0 and m2 = 0 the
    # slope is about m1 * m1, its limit, and not 0 / 0.
    limited = F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)
    angle, fold = _fold(F, limited, m1, m2)
    return psi, _sign(fold) * F.sin(angle) * m1 / _sine(F, limited)


def combined_margin(
    F: Any,
    cosine: Any,
    m1: float = 1.0,
    m2: float = 0.0,
    m3: float = 0.0,
    easy_margin: bool = False,
) -> tuple[Any, Any]:
    """Combine three margins: psi = cos(m1 t + m2) - m3.

    psi decreases as the angle t grows, also where m1 t + m2 exceeds pi: with m1 = 1 through the
    guard of `additive_angle`, with another m1 through the continuation of `multiplied_angle`. With
    m1 = 1 and m2 = m3 = 0, psi is the cosine. With `easy_margin` the three margins apply only to
    angles below pi/2 (see `confined`).
    """
    if m1 == 1:
        psi, slope = additive_angle(F, cosine, m2)
    else:
        psi, slope = multiplied_angle(F, cosine, m1, m2)
    return confined(F, cosine, psi - m3, slope) if easy_margin else (psi - m3, slope)


def clipped_angle(F: Any, cosine: Any) -> Any:
    """Return arccos of a cosine, with the gradient 0 within 4.9e-4 radians of 0 and pi."""
    return F.arccos(F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT))


def _sine(F: Any, cosine: Any) -> Any:
    # sin t = sqrt((1 - c)(1 + c)). The form 1 - c * c would lose its significant digits near c = 1.
    return F.sqrt((1.0 - cosine) * (1.0 + cosine))


def _with_added_angle(F: Any, cosine: Any, cos_m: Any, sin_m: Any) -> tuple[Any, Any]:
    """Return cos(t + m), and its slope cos m + (c / sin t) sin m with respect to c = cos t.

    The margin m is given by its cosine ``cos_m`` and its sine ``sin_m``.
    """
    limited = F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)
    slope = cos_m + limited / _sine(F, limited) * sin_m
    return cosine * cos_m - _sine(F, cosine) * sin_m, slope


def _fold(F: Any, cosine: Any, m1: float, m2: float) -> tuple[Any, Any]:
    angle = F.arccos(cosine) * m1 + m2
    return angle, F.floor(angle / math.pi)


def _sign(fold: Any) -> Any:
    return 1.0 - 2.0 * (fold % 2.0)
