# SPDX-License-Identifier: Apache-2.0
"""Margin functions: they replace the cosine of the true class.

Each function takes the target cosine c = cos t, where t is the angle between an embedding and the
centre of its class, and returns (psi, dpsi): the new value, and its slope dpsi/dc. Arrays are (B,)
float32, angles are in radians, and ``F`` is ``mx.nd`` or ``mx.sym``. The caller detaches the cosine
and uses dpsi as the gradient. The gradients of arccos and of the square root, which are infinite at
c = 1 and -1, therefore never appear.
"""

import math
from typing import Any

# Limit of a cosine before a division by sin t, which is then at least 4.9e-4 in float32. The
# normalisation of the embedding multiplies the slope by sin t again, so the limit bounds the slope
# without a visible change of the step.
COSINE_LIMIT = 1.0 - 1e-7
# Smallest distance of a moved angle from 0 and pi, in radians; the value of AdaFace's authors.
ANGLE_LIMIT = 1e-3
# Largest rounding error of a float32 cosine. A margin jumps at a right angle, and a class becomes
# hard with a jump. Without this tolerance the plain and the native operators, which round
# differently, would disagree about exact right angles and ties.
ROUNDING = 5e-7


def additive_cosine(F: Any, cosine: Any, m3: float) -> tuple[Any, Any]:
    """Subtract m3 from the cosine: psi = c - m3."""
    return cosine - m3, F.ones_like(cosine)


def additive_angle(F: Any, cosine: Any, m2: float, easy_margin: bool = False) -> tuple[Any, Any]:
    """Add m2 to the angle: psi = cos(t + m2), with a guard where t + m2 exceeds pi.

    For t > pi - m2 the cosine would rise again. There psi = c - m2 sin m2, with slope 1: the guard
    of the code that the authors of ArcFace published. At t = pi - m2 psi drops from -1 to
    -cos m2 - m2 sin m2 (by 0.117 for m2 = 0.5) and stays below -1. m2 is from 0 to pi/2.

    With `easy_margin` the margin applies only to t < pi/2, as in `confined`; psi then jumps from
    -sin m2 up to 0 at pi/2.
    """
    if m2 == 0:
        return additive_cosine(F, cosine, 0.0)
    clipped = F.clip(cosine, -1.0, 1.0)  # a rounding error can make it larger than 1
    inside, inside_slope = _with_added_angle(F, clipped, math.cos(m2), math.sin(m2))
    if easy_margin:
        return confined(F, cosine, inside, inside_slope)
    unguarded, beyond = clipped > -math.cos(m2), clipped - m2 * math.sin(m2)
    slope = F.where(unguarded, inside_slope, F.ones_like(clipped))
    return F.where(unguarded, inside, beyond), slope


def confined(F: Any, cosine: Any, psi: Any, slope: Any) -> tuple[Any, Any]:
    """Confine a margin (psi, slope) to angles below pi/2: elsewhere psi = c, with slope 1.

    An angle within ROUNDING of pi/2 counts as pi/2.

    Notes
    -----
    ``easy_margin`` of the code that the authors of ArcFace, SV-Softmax and MagFace published; no
    equation of their papers has it.
    """
    applies = cosine > ROUNDING
    return F.where(applies, psi, cosine), F.where(applies, slope, F.ones_like(cosine))


def unguarded_angle(F: Any, cosine: Any, m2: float) -> Any:
    """Return cos(t + m2) without the guard of `additive_angle`, (B,): it rises for t > pi - m2."""
    return _with_added_angle(F, F.clip(cosine, -1.0, 1.0), math.cos(m2), math.sin(m2))[0]


def additive_angles(
    F: Any, cosine: Any, m2: Any, easy_margin: bool = False
) -> tuple[Any, Any, Any]:
    """Add an individual margin to each angle, with the guard of `additive_angle`.

    Inputs
    ------
    cosine, m2 : (B,) float32 each
        Margins from 0 to pi/2.

    Outputs
    -------
    psi, dpsi : (B,) float32 each
    by_margin : (B,) float32
        Slope of psi with respect to the margin: -sin(t + m2); with the guard
        -(sin m2 + m2 cos m2); 0 where no margin applies.
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

    psi = cos(t - m q) - m (1 + q): q = -1 gives ArcFace's margin m on the angle, q = 0 CosFace's on
    the cosine, q = 1 a negative margin on the angle and 2 m on the cosine. The angle t - m q is
    clipped to ANGLE_LIMIT to pi - ANGLE_LIMIT, with slope 0 outside.

    Inputs
    ------
    cosine, quality : (B,) float32 each
        Qualities q from -1 to 1.
    """
    cosine = F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)
    angle = F.arccos(cosine) - m * quality
    clipped = F.clip(angle, ANGLE_LIMIT, math.pi - ANGLE_LIMIT)
    slope = F.where(clipped == angle, F.sin(angle) / _sine(F, cosine), F.zeros_like(cosine))
    return F.cos(clipped) - m * (1.0 + quality), slope


def multiplied_angle(F: Any, cosine: Any, m1: float, m2: float) -> tuple[Any, Any]:
    """Multiply the angle by m1 and add m2: psi = (-1)^k cos(m1 t + m2) - 2 k.

    k = floor((m1 t + m2) / pi) continues the cosine below -1 past pi, so psi decreases
    monotonically and without a jump for all t. The slope is (-1)^k m1 sin(m1 t + m2) / sin t.

    Notes
    -----
    For m2 = 0 and a whole m1 it is k of Liu et al., "SphereFace", arXiv:1704.08063, section 3.2.
    """
    angle, fold = _fold(F, F.clip(cosine, -1.0, 1.0), m1, m2)
    psi = _sign(fold) * F.cos(angle) - 2.0 * fold
    # Both factors of the slope use the limited cosine: at t = 0 and m2 = 0 the quotient then tends
    # to m1 * m1 instead of 0 / 0.
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
    """Combine all three margins: psi = cos(m1 t + m2) - m3, decreasing for every angle.

    With m1 = 1 the angle is guarded as in `additive_angle`, otherwise continued as in
    `multiplied_angle`; m3 is subtracted in both. With m1 = 1 and m2 = m3 = 0, psi = c.
    `easy_margin` confines all three margins as in `confined`.
    """
    if m1 == 1:
        psi, slope = additive_angle(F, cosine, m2)
    else:
        psi, slope = multiplied_angle(F, cosine, m1, m2)
    return confined(F, cosine, psi - m3, slope) if easy_margin else (psi - m3, slope)


def clipped_angle(F: Any, cosine: Any) -> Any:
    """Return the angle of a cosine, with slope 0 within 4.5e-4 radians of 0 and pi."""
    return F.arccos(F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT))


def _sine(F: Any, cosine: Any) -> Any:
    # (1 - c)(1 + c), not 1 - c * c: near c = 1 the square loses the significant digits.
    return F.sqrt((1.0 - cosine) * (1.0 + cosine))


def _with_added_angle(F: Any, cosine: Any, cos_m: Any, sin_m: Any) -> tuple[Any, Any]:
    """Return cos(t + m) and its slope cos m + (c / sin t) sin m."""
    limited = F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)
    slope = cos_m + limited / _sine(F, limited) * sin_m
    return cosine * cos_m - _sine(F, cosine) * sin_m, slope


def _fold(F: Any, cosine: Any, m1: float, m2: float) -> tuple[Any, Any]:
    angle = F.arccos(cosine) * m1 + m2
    return angle, F.floor(angle / math.pi)


def _sign(fold: Any) -> Any:
    return 1.0 - 2.0 * (fold % 2.0)
