# SPDX-License-Identifier: Apache-2.0
"""A-Softmax, the annealed loss of SphereFace: unscaled embeddings, normalised centres."""

import math

from heads.checks import check_count, check_number
from heads.cross_entropy import Form, cross_entropy, length, normalised, through_psi
from heads.margin_softmax import MarginSoftmax, check_size
from heads.margins import multiplied_angle


class ASoftmax(MarginSoftmax):
    """Softmax on |x| cos t with the angle to the true class multiplied: see `a_softmax`."""

    _may_step = False

    def __init__(
        self, num_classes: int, embedding_size: int, m1: int, lambda_min: float, **kwargs
    ) -> None:
        super().__init__(num_classes, embedding_size, m1=m1, scale=1.0, **kwargs)
        self._most = 1.0 / (1.0 + lambda_min)

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight):
        sizes = length(F, embedding)  # (B,)
        fixed = F.BlockGrad(sizes)
        centre = F.BlockGrad(F.take(weight, label, mode="clip"))
        cosine = F.BlockGrad(F.sum(normalised(F, embedding) * normalised(F, centre), axis=1))
        psi, slope = multiplied_angle(F, cosine, self._margins["m1"], 0.0)
        share = margin_fraction * self._most
        psi = cosine + F.broadcast_mul(psi - cosine, share)
        slope = 1.0 + F.broadcast_mul(slope - 1.0, share)
        loss, _ = cross_entropy(
            F,
            embedding,
            weight,
            label,
            self._num_classes,
            Form(unit_rows=False),
            lambda score: (fixed * psi, slope),
            dtype=self._dtype,
        )
        # |x| psi(t) varies by |x| beside the score |x| cos t.
        beside = F.BlockGrad(psi - slope * cosine)
        return through_psi(F, loss, beside * sizes, 1.0), cosine


def a_softmax(
    num_classes: int, embedding_size: int, *, m1: int = 4, lambda_min: float = 5.0
) -> ASoftmax:
    """Build the annealed softmax of SphereFace.

    The logits are |x| cos t_j; that of the true class is |x| (lambda cos t + psi) / (1 + lambda),
    where psi = (-1)^k cos(m1 t) - 2 k. Here w / (1 + lambda_min) stands for 1 / (1 + lambda): the
    margin fraction w, which ``train.margin_warmup`` raises from 0 to 1, does the annealing; without
    it lambda is lambda_min from the first step. The authors' released configuration has lambda =
    1000 / (1 + 0.12 step), a usual reimplementation 1500 / (1 + 0.1 step): they make the same,
    nearly straight way to 5, in 1,658 and 2,990 steps.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    m1
        Factor on the angle, a whole number from 1 to 4.
    lambda_min
        Least lambda, from 0, which is the full margin.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Liu et al., "SphereFace", arXiv:1704.08063, equation 7; annealing as in its appendix.
    """
    m1 = check_count("head.m1", m1, 1, advice="the paper has 4; sphereface takes any factor")
    size = check_size(num_classes, embedding_size, 1.0)
    del size["scale"]
    return ASoftmax(
        **size,
        m1=int(check_number("head.m1", m1, 1, 4, advice="4 is usual")),
        lambda_min=check_number("head.lambda_min", lambda_min, 0, math.inf, advice="5 is usual"),
    )
