# SPDX-License-Identifier: Apache-2.0
"""Losses that reweigh the other classes: SV-X-Softmax, CurricularFace, Circle.

A class counts as hard for an image by its cosine alone, and its new cosine is a polynomial of the
old one, so that the fused operator does it class by class: no (B, C) matrix is built.
"""

import mxnet as mx
from mxnet import autograd

from heads.checks import check_flag, check_number
from heads.cross_entropy import normalised
from heads.margin_softmax import MarginSoftmax, check_margins, check_size
from heads.margins import ROUNDING, multiplied_angle, unguarded_angle
from heads.statistics import Reduce, alone, state


def _six(F, fraction, *numbers):
    """Return the numbers of ``columns`` in `heads.cross_entropy.cross_entropy`, (6,)."""
    one = F.ones_like(fraction)
    return F.concat(*(one * number for number in numbers), dim=0)


def _part(F, fraction, cosine, psi):
    """Return the true class's score with this share of its margin, (B,)."""
    return cosine + F.broadcast_mul(psi - cosine, fraction)


class SVSoftmax(MarginSoftmax):
    """A margin on the true class, and a factor t on the hard other ones: see `sv_softmax`."""

    def __init__(self, num_classes: int, embedding_size: int, t: float, **kwargs) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        self._t = t

    def _columns(self, F, fraction, psi, cosine):
        extra = fraction * (self._t - 1.0)
        numbers = _six(F, fraction, 0.0, 1.0 + extra, extra, 0.0, 1.0 + extra, 1.0)
        if self._margins["easy_margin"]:
            psi = _part(F, fraction, cosine, self._at_every_angle(F, cosine))
        return psi + ROUNDING, numbers  # a class as near as psi is not hard

    def _at_every_angle(self, F, cosine):
        """Return psi as it is without an easy margin and without a guard, (B,)."""
        m1, m2, m3 = (self._margins[name] for name in ("m1", "m2", "m3"))
        if m1 == 1:
            return unguarded_angle(F, cosine, m2) - m3
        return multiplied_angle(F, cosine, m1, m2)[0] - m3


class CurricularFace(MarginSoftmax):
    """ArcFace whose hard other classes weigh the more the further training is.

    See `curricularface`, which builds it.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        m2: float,
        momentum: float,
        scale: float,
        guarded_threshold: bool,
        reduce: Reduce = alone,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, m2=m2, scale=scale, **kwargs)
        self._m2, self._guarded_threshold = m2, guarded_threshold
        self._momentum, self._reduce = momentum, reduce
        self.t = state(self, "t", (1,), mx.init.Zero())

    def forward(self, embedding, label, margin_fraction=None):
        if autograd.is_training() and isinstance(embedding, mx.nd.NDArray):
            with autograd.pause():
                centre = mx.nd.take(self.weight.list_data()[0], label, mode="clip")
                cosine = (normalised(mx.nd, embedding) * normalised(mx.nd, centre)).sum(axis=1)
                t = self.t.list_data()[0]
                t[:] = t + self._momentum * (self._reduce(cosine, mx.nd.mean) - t)
        return super().forward(embedding, label, margin_fraction)

    def _full_margin(self, F, cosine, embedding, t):
        return super()._full_margin(F, cosine, embedding)

    def _columns(self, F, fraction, psi, cosine, t):
        linear = 1.0 + fraction * (t - 1.0)
        numbers = _six(F, fraction, fraction, linear, 0.0, 2.0 * fraction, linear, 1.0)
        if not self._guarded_threshold:
            psi = _part(F, fraction, cosine, unguarded_angle(F, cosine, self._m2))
        return psi + ROUNDING, numbers  # a class as near as psi is not hard


class Circle(MarginSoftmax):
    """Cosines weighed by how far they are from where they should be: see `circle`."""

    def __init__(
        self, num_classes: int, embedding_size: int, m: float, scale: float, **kwargs
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self._m = m

    def _margin(self, F, cosine, fraction, embedding, state):
        weight = F.relu(1.0 + self._m - cosine)
        return weight * (cosine - (1.0 - self._m)), weight

    def _columns(self, F, fraction, psi, cosine):
        m = self._m
        return F.ones_like(psi) * -m, _six(F, fraction, 1.0, 0.0, -m * m, 1.0, m, 0.0)


def sv_softmax(
    num_classes: int,
    embedding_size: int,
    *,
    t: float = 1.2,
    m1: float = 1.0,
    m2: float = 0.0,
    m3: float = 0.35,
    scale: float = 64.0,
    easy_margin: bool = False,
) -> SVSoftmax:
    """Build a softmax with a margin that also stresses the support vectors among the other classes.

    A class whose cosine c is above psi, the true class's with its margin, gets t c + t - 1. psi is
    that of `combined`.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    t
        Stress, from 1, which is none.
    m1, m2, m3
        Margins on the true class: factor on the angle, radians added to it, amount taken off the
        cosine.
    scale
        Factor on the cosines, above 0; 32 in the authors' released code.
    easy_margin
        Whether all margins are confined to angles below pi/2; true by default in that code. Which
        classes are hard is decided as there, by the margin at every angle and without a guard.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Wang et al., "Support Vector Guided Softmax Loss", arXiv:1812.11317, equations 6 to 9. The
    margin fraction of a warm-up holds for the stress, too. ``easy_margin`` is false by default: the
    equations have a margin at every angle, and with it the hardest images, beyond pi/2, have none.
    Where t_y > pi - m2 (m1 = 1) `arcface`'s guard holds, which is in neither paper nor code: there
    cos(t_y + m2) would rise again, so that an image would gain by turning away from its centre.
    """
    return SVSoftmax(
        **check_size(num_classes, embedding_size, scale),
        **check_margins(m1=m1, m2=m2, m3=m3),
        easy_margin=check_flag("head.easy_margin", easy_margin),
        t=check_number("head.t", t, 1, 10, advice="1.2 is usual"),
    )


def curricularface(
    num_classes: int,
    embedding_size: int,
    reduce: Reduce = alone,
    *,
    m2: float = 0.5,
    scale: float = 64.0,
    momentum: float = 0.01,
    guarded_threshold: bool = True,
) -> CurricularFace:
    """Build an ArcFace that turns to hard other classes in the course of training.

    A class whose cosine c is above psi, the true class's with its margin, gets c (t + c), where t
    is the running mean of the cosines to the true class.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    reduce
        See `heads.statistics.Reduce`.
    m2
        Margin added to the angle in radians, 0 to pi/2.
    scale
        Factor on the cosines, above 0.
    momentum
        Share of the newest batch in t, above 0 and at most 1.
    guarded_threshold
        Whether classes are compared with psi as it is, guarded; false compares them with
        cos(t_y + m2) without the guard, as the authors' released code does.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Huang et al., "CurricularFace", arXiv:2004.00288, equations 4 to 7. The margin fraction of a
    warm-up holds for the other classes, too. The paper has no guard; the authors' code has
    `arcface`'s for psi alone. The two thresholds differ where t_y > pi - m2. There psi is below
    every cosine, so that with ``guarded_threshold`` all classes are hard, as for an image at
    pi - m2; without it fewer are, the further the image turns away.
    """
    return CurricularFace(
        **check_size(num_classes, embedding_size, scale),
        m2=check_margins(m2=m2)["m2"],
        momentum=check_number(
            "head.momentum", momentum, 0, 1, open_low=True, advice="0.01 is usual"
        ),
        guarded_threshold=check_flag("head.guarded_threshold", guarded_threshold),
        reduce=reduce,
    )


def circle(
    num_classes: int, embedding_size: int, *, m: float = 0.25, scale: float = 256.0
) -> Circle:
    """Build a circle loss on the cosines to all classes.

    The logit of the true class is scale a (c - (1 - m)) with a = max(0, 1 + m - c), of the others
    scale a (c - m) with a = max(0, c + m); no gradient flows through a.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    m
        Margin, which is also the relaxation, 0 to 1.
    scale
        Factor gamma, above 0.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Sun et al., "Circle Loss", arXiv:2002.10857, equations 7 and 8 with class-level labels. A margin
    fraction has no effect.
    """
    return Circle(
        **check_size(num_classes, embedding_size, scale),
        m=check_number("head.m", m, 0, 1, advice="0.25 is usual"),
    )
