# SPDX-License-Identifier: Apache-2.0
"""A-Softmax: the loss of SphereFace, with an annealed margin and unnormalised embeddings."""

from typing import Annotated, Any

from heads.cross_entropy import Form, length, normalised, through_psi
from heads.head import ClassHead
from heads.margins import multiplied_angle
from ranges import Within, at_least

Factor = Annotated[int, Within(1, 4, "the paper uses 4; head.name=sphereface accepts fractions")]


class ASoftmax(ClassHead):
    """Softmax on unnormalised embeddings with an annealed factor on the angle to the true class.

    logits |x| c_j; true class: |x| (c + (psi - c) w / (1 + lambda_min)),
    psi = (-1)^k cos(m1 t) - 2 k, k = floor(m1 t / pi)

    Liu et al., "SphereFace", arXiv:1704.08063, equation 7; annealing as in its appendix.

    Symbols: |x| is the L2 norm of the embedding; c_j is its cosine to the centre of class j; c and
    t are its cosine and angle to the centre of the true class.

    The annealing factor 1 / (1 + lambda) of the paper is w / (1 + lambda_min) here:
    ``train.margin_warmup`` raises the margin fraction w from 0 to 1.

    Parameters
    ----------
    m1
        Factor on the angle to the true class, a whole number: larger factors give a larger margin.
    lambda_min
        Value of lambda at the end of the annealing; 0 gives the full margin, 5 gives a sixth of the
        margin.
    """

    def __init__(
        self,
        *sizes: int,
        m1: Factor = 4,
        lambda_min: Annotated[float, at_least(0, "the usual lambda_min is 5")] = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._m1, self._max_fraction = m1, 1.0 / (1.0 + lambda_min)

    def hybrid_forward(
        self, F: Any, embedding: Any, label: Any, margin_fraction: Any, weight: Any
    ) -> tuple[Any, Any]:
        lengths = length(F, embedding)
        fixed = F.BlockGrad(lengths)
        centre = F.BlockGrad(F.take(weight, label, mode="clip"))
        cosine = F.BlockGrad(F.sum(normalised(F, embedding) * normalised(F, centre), axis=1))
        psi, slope = multiplied_angle(F, cosine, self._m1, 0.0)
        fraction = margin_fraction * self._max_fraction
        psi = cosine + F.broadcast_mul(psi - cosine, fraction)
        slope = 1.0 + F.broadcast_mul(slope - 1.0, fraction)
        margin, form = (lambda score: (fixed * psi, slope)), Form(unit_rows=False)
        loss, _ = self.cross_entropy(F, embedding, weight, label, form=form, margin=margin)
        # The logit |x| psi(t) of the true class depends on |x| through the score |x| cos t and
        # through the factor |x|. `slope` covers only the score; through_psi adds the other part.
        by_length = F.BlockGrad(psi - slope * cosine)
        return through_psi(F, loss, by_length * lengths, 1.0), cosine
