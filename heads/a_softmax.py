# SPDX-License-Identifier: Apache-2.0
"""A-Softmax, the annealed loss of SphereFace."""

from typing import Annotated

from heads.cross_entropy import Form, cross_entropy, length, normalised, through_psi
from heads.head import ClassHead
from heads.margins import multiplied_angle
from ranges import Within, at_least


class ASoftmax(ClassHead):
    """Softmax on |x| cos t, the angle to the true class multiplied by m1 and annealed.

    |x| c_j; true class: |x| (c + w / (1 + lambda_min) (psi - c)), psi = (-1)^k cos(m1 t) - 2 k

    Liu et al., "SphereFace", arXiv:1704.08063, equation 7; annealing as in its appendix.

    w / (1 + lambda_min) stands for 1 / (1 + lambda): the margin fraction w, which
    ``train.margin_warmup`` raises from 0 to 1, does the annealing.

    Parameters
    ----------
    m1
        Factor on the angle, a whole number.
    lambda_min
        Least lambda; 0 is the full margin.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        m1: Annotated[int, Within(1, 4, "4 is the paper's; sphereface takes any factor")] = 4,
        lambda_min: Annotated[float, at_least(0, "5 is usual")] = 5.0,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        self._m1, self._max_share = m1, 1.0 / (1.0 + lambda_min)

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight):
        sizes = length(F, embedding)  # (B,)
        fixed = F.BlockGrad(sizes)
        centre = F.BlockGrad(F.take(weight, label, mode="clip"))
        cosine = F.BlockGrad(F.sum(normalised(F, embedding) * normalised(F, centre), axis=1))
        psi, slope = multiplied_angle(F, cosine, self._m1, 0.0)
        share = margin_fraction * self._max_share
        psi = cosine + F.broadcast_mul(psi - cosine, share)
        slope = 1.0 + F.broadcast_mul(slope - 1.0, share)
        loss, _ = cross_entropy(
            F,
            embedding,
            weight,
            label,
            num_classes=self._num_classes,
            form=Form(unit_rows=False),
            margin=lambda score: (fixed * psi, slope),
            dtype=self._dtype,
        )
        # |x| psi(t) varies by |x| beside the score |x| cos t.
        beside = F.BlockGrad(psi - slope * cosine)
        return through_psi(F, loss, beside * sizes, 1.0), cosine
