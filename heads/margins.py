# SPDX-License-Identifier: Apache-2.0
"""Margin functions: what replaces the cosine of the true class, and its slope.

Each function takes the target cosine c = cos t, t being the angle between an embedding and the
centre of its own class, and returns (psi, dpsi): the value that replaces c, and dpsi/dc. They are
elementwise, take ``mx.nd`` or ``mx.sym`` as ``F``, and are meant to be called on a detached
cosine: the caller passes dpsi on as the gradient. So the gradients of arccos and of the square
root, infinite at c = 1 and -1, never appear. Arrays are (B,) float32, angles in radians.
"""

import math

# Nearest to +-1 that a cosine may come before something is divided by sin t. In float32 sin t is
# then at least 4.9e-4. A slope is multiplied by sin t again where the embedding was normalised,
# so the clip bounds it without changing a step that can be noticed.
COSINE_LIMIT = 1.0 - 1e-7
# Nearest to 0 and pi, in radians, that an angle is moved; its authors' value in AdaFace.
ANGLE_LIMIT = 1e-3
# By which a float32 cosine may miss. A margin jumps at a right angle and a class becomes hard with
# a jump: without it, rounding would decide for exact right angles and ties, and the plain and the
# native form, which round differently, would each decide for itself.
ROUNDING = 5e-7


def additive_cosine(F, cosine, m3):
    """Subtract m3 from the cosine: psi = c - m3.

    Notes
    -----
    Wang et al., "CosFace", arXiv:1801.09414, equation 4.
    """
    return cosine - m3, F.ones_like(cosine)


def additive_angle(F, cosine, m2, easy_margin=False):
    """Add m2 to the angle: psi = cos(t + m2), guarded where t + m2 would pass pi.

    For t > pi - m2 the cosine would rise again; there psi = c - m2 sin m2, with slope 1. At the
    joint psi drops from -1 to -cos m2 - m2 sin m2 (by 0.117 at m2 = 0.5) and stays below.
    m2 goes from 0 to pi/2. With `easy_margin` the margin holds for t < pi/2 only, as `confined`
    says; there psi jumps up from -sin m2 to 0 at the joint.

    Notes
    -----
    Deng et al., "ArcFace", arXiv:1801.07698, equation 3; the guard is that of its authors' code.
    The slope inside is sin(t + m2) / sin t = cos m2 + (c / sin t) sin m2.
    """
    if m2 == 0:
        return additive_cosine(F, cosine, 0.0)
    clipped = F.clip(cosine, -1.0, 1.0)  # rounding may pass 1
    inside, inside_slope = _added(F, clipped, math.cos(m2), math.sin(m2))
    if easy_margin:
        return confined(F, cosine, inside, inside_slope)
    cosine = clipped
    holds, beyond = cosine > -math.cos(m2), cosine - m2 * math.sin(m2)
    return F.where(holds, inside, beyond), F.where(holds, inside_slope, F.ones_like(cosine))


def confined(F, cosine, psi, slope):
    """Confine a margin to angles below pi/2: psi = c at pi/2 and beyond, with slope 1.

    An angle within ROUNDING of pi/2 counts as pi/2.

    ``psi`` and ``slope`` are what the margin gives for the cosine.

    Notes
    -----
    ``easy_margin`` of the code that the authors of ArcFace, SV-Softmax and MagFace released; no
    equation of their papers has it.
    """
    holds = cosine > ROUNDING
    return F.where(holds, psi, cosine), F.where(holds, slope, F.ones_like(cosine))


def unguarded_angle(F, cosine, m2):
    """Return cos(t + m2) without the guard of `additive_angle`, (B,): it rises past pi - m2."""
    return _added(F, F.clip(cosine, -1.0, 1.0), math.cos(m2), math.sin(m2))[0]


def additive_angles(F, cosine, m2, easy_margin=False):
    """Add to each angle a margin of its own: psi = cos(t + m2), guarded as in `additive_angle`.

    Inputs
    ------
    cosine, m2 : (B,) float32 each
        Margins from 0 to pi/2.

    Outputs
    -------
    psi, dpsi : (B,) float32 each
    by_margin : (B,) float32
        Slope of psi towards the margin: -sin(t + m2), beyond the guard -(sin m2 + m2 cos m2), 0
        where there is no margin.
    """
    cosine = F.clip(cosine, -1.0, 1.0)
    cos_m, sin_m = F.cos(m2), F.sin(m2)
    inside, inside_slope = _added(F, cosine, cos_m, sin_m)
    inside_by_margin = -(_sine(F, cosine) * cos_m + cosine * sin_m)
    if easy_margin:
        by_margin = inside_by_margin * (cosine > ROUNDING)
        psi, slope = confined(F, cosine, inside, inside_slope)
        return psi, slope, by_margin
    holds = cosine > -cos_m
    return (
        F.where(holds, inside, cosine - m2 * sin_m),
        F.where(holds, inside_slope, F.ones_like(cosine)),
        F.where(holds, inside_by_margin, -(sin_m + m2 * cos_m)),
    )


def adaptive_angle(F, cosine, quality, m):
    """Move the angle and the cosine by margins that depend on the quality of the image.

    psi = cos(t - m q) - m (1 + q): for q = -1 ArcFace's margin m on the angle, for q = 0
    CosFace's on the cosine, for q = 1 a negative one on the angle and twice m on the cosine.
    The angle t - m q is kept within ANGLE_LIMIT of 0 and pi, where the slope is 0.

    Inputs
    ------
    cosine, quality : (B,) float32 each
        Qualities q from -1 to 1.

    Notes
    -----
    Kim et al., "AdaFace", arXiv:2204.00964, equations 13 to 15.
    """
    cosine = F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)
    angle = F.arccos(cosine) - m * quality
    kept = F.clip(angle, ANGLE_LIMIT, math.pi - ANGLE_LIMIT)
    slope = F.where(kept == angle, F.sin(angle) / _sine(F, cosine), F.zeros_like(cosine))
    return F.cos(kept) - m * (1.0 + quality), slope


def multiplied_angle(F, cosine, m1, m2):
    """Multiply the angle by m1 and add m2: psi = (-1)^k cos(m1 t + m2) - 2 k.

    k = floor((m1 t + m2) / pi) continues the cosine downwards past pi, so psi falls
    monotonically and without a jump over the whole range of t.

    Notes
    -----
    Liu et al., "SphereFace", arXiv:1704.08063, section 3.2 for m2 = 0 and a whole m1, where k
    is theirs. The slope is (-1)^k m1 sin(m1 t + m2) / sin t.
    """
    angle, fold = _fold(F, F.clip(cosine, -1.0, 1.0), m1, m2)
    psi = _sign(fold) * F.cos(angle) - 2.0 * fold
    # The slope is taken at the limited cosine in both factors: at t = 0 and m2 = 0 the quotient
    # then tends to m1 * m1 instead of 0 / 0.
    limited = F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)
    angle, fold = _fold(F, limited, m1, m2)
    return psi, _sign(fold) * F.sin(angle) * m1 / _sine(F, limited)


def combined_margin(F, cosine, m1=1.0, m2=0.0, m3=0.0, easy_margin=False):
    """Combine all three margins, psi = cos(m1 t + m2) - m3 in the form that falls for every angle.

    With m1 = 1 the angle is guarded as in `additive_angle`, otherwise continued as in
    `multiplied_angle`; m3 is subtracted in both. All margins neutral give psi = c. `easy_margin`
    confines all three: see `confined`.

    Notes
    -----
    Deng et al., "ArcFace", arXiv:1801.07698, equation 4.
    """
    if m1 == 1:
        psi, slope = additive_angle(F, cosine, m2)
    else:
        psi, slope = multiplied_angle(F, cosine, m1, m2)
    return confined(F, cosine, psi - m3, slope) if easy_margin else (psi - m3, slope)


def clipped_angle(F, cosine):
    """Return the angle of a cosine, with a slope of 0 within 4.5e-4 radians of 0 and pi."""
    return F.arccos(F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT))


def _sine(F, cosine):
    # (1 - c)(1 + c), not 1 - c * c: the square rounds away what is left near c = 1.
    return F.sqrt((1.0 - cosine) * (1.0 + cosine))


def _added(F, cosine, cos_m, sin_m):
    """Return cos(t + m) and its slope towards the cosine."""
    limited = F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT)
    slope = cos_m + limited / _sine(F, limited) * sin_m
    return cosine * cos_m - _sine(F, cosine) * sin_m, slope


def _fold(F, cosine, m1, m2):
    angle = F.arccos(cosine) * m1 + m2
    return angle, F.floor(angle / math.pi)


def _sign(fold):
    return 1.0 - 2.0 * (fold % 2.0)
