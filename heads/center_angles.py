# SPDX-License-Identifier: Apache-2.0
"""ArcFace with the angle to the own centre, or those between centres, as a second term."""

import math

from heads.checks import check_number
from heads.cross_entropy import normalised
from heads.margin_softmax import MarginSoftmax, check_margins, check_size
from heads.margins import COSINE_LIMIT


def _angle(F, cosine):
    return F.arccos(F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT))


class IntraAngle(MarginSoftmax):
    """ArcFace and the angle to the own centre: see `intra`."""

    _may_step = False

    def __init__(
        self, num_classes: int, embedding_size: int, intra_weight: float, **kwargs
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        self._intra_weight = intra_weight

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight):
        loss, target = super().hybrid_forward(F, embedding, label, margin_fraction, weight)
        own = normalised(F, F.take(weight, label, mode="clip"))
        angle = _angle(F, F.sum(normalised(F, embedding) * own, axis=1))
        return loss + self._intra_weight / math.pi * angle, target


class InterAngle(MarginSoftmax):
    """ArcFace and the angles from the own centre to all others: see `inter`."""

    _may_step = False

    def __init__(
        self, num_classes: int, embedding_size: int, inter_weight: float, **kwargs
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        self._inter_weight = inter_weight

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight):
        loss, target = super().hybrid_forward(F, embedding, label, margin_fraction, weight)
        unit = normalised(F, weight)
        cosine = F.FullyConnected(  # (B, C)
            F.take(unit, label, mode="clip"), unit, num_hidden=self._num_classes, no_bias=True
        )
        angle = _angle(F, cosine)
        total = F.sum(angle, axis=1) - F.pick(angle, label, axis=1)
        return loss - self._inter_weight / (math.pi * (self._num_classes - 1)) * total, target


def intra(
    num_classes: int,
    embedding_size: int,
    *,
    m2: float = 0.5,
    scale: float = 64.0,
    intra_weight: float = 1.0,
) -> IntraAngle:
    """Build an ArcFace that also pulls by the angle to the own centre: + intra_weight t_y / pi.

    The slope of that angle is 0 within 4.5e-4 radians of 0 and pi, where arccos has none that is
    finite: the second term alone does not pull an image nearer to its centre than that.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    m2
        Margin added to the angle in radians, 0 to pi/2.
    scale
        Factor on the cosines, above 0.
    intra_weight
        From 0.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Deng et al., "ArcFace", arXiv:1801.07698, equation 5 (intra-loss), there with m2 = 0.
    """
    return IntraAngle(
        **check_size(num_classes, embedding_size, scale),
        **check_margins(m2=m2),
        intra_weight=check_number(
            "head.intra_weight", intra_weight, 0, math.inf, advice="1 is the paper's"
        ),
    )


def inter(
    num_classes: int,
    embedding_size: int,
    *,
    m2: float = 0.5,
    scale: float = 64.0,
    inter_weight: float = 1.0,
) -> InterAngle:
    """Build an ArcFace that also pushes the own centre from all others.

    From the loss of an image inter_weight / (pi (C - 1)) times the sum of the angles between its
    own centre and the others is taken off. It builds a (B, C) matrix: that sum goes over pairs of
    classes. The slope of an angle is 0 within 4.5e-4 radians of 0 and pi.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    m2
        Margin added to the angle in radians, 0 to pi/2.
    scale
        Factor on the cosines, above 0.
    inter_weight
        From 0.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Deng et al., "ArcFace", arXiv:1801.07698, equation 6 (inter-loss), there with m2 = 0.
    """
    return InterAngle(
        **check_size(num_classes, embedding_size, scale),
        **check_margins(m2=m2),
        inter_weight=check_number(
            "head.inter_weight", inter_weight, 0, math.inf, advice="1 is the paper's"
        ),
    )
