# SPDX-License-Identifier: Apache-2.0
"""Large-margin Gaussian mixture loss: softmax on squared distances to the class centres."""

from typing import Annotated, Any

import mxnet as mx
from mxnet import init

from heads.cross_entropy import Form, normalised, through_psi
from heads.head import ClassHead
from heads.prediction import nearest_centre
from ranges import at_least


class GaussianMixture(ClassHead):
    """Softmax of Gaussian classes, with a margin on the squared distance and a likelihood term.

    logits -d_j; true class: -(1 + alpha) d_y; d_j = |x - w_j|^2 / 2; loss + likelihood_weight d_y

    Wan et al., "Rethinking Feature Distribution for Loss Functions in Image Classification",
    arXiv:1803.02988, equations 11 to 14, with equal priors and with the identity matrix as every
    covariance.

    Symbols: x is the embedding; w_j is the centre of class j; y is the true class.

    Parameters
    ----------
    alpha
        Margin, as a fraction of the squared distance between an embedding and the centre of its
        class.
    likelihood_weight
        Factor on the likelihood term, half the squared distance to the centre of the true class;
        lambda in the paper.
    """

    initializer = init.Xavier()

    def __init__(
        self,
        *sizes: int,
        alpha: Annotated[float, at_least(0, "the usual margin is 0.01 to 1")] = 0.1,
        likelihood_weight: Annotated[float, at_least(0, "the usual weight is 0.1")] = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._alpha, self._likelihood_weight = alpha, likelihood_weight

    def predict(self, embedding: mx.nd.NDArray) -> mx.nd.NDArray:
        centres = self.weight.list_data()[0]
        return nearest_centre(embedding, centres, unit_columns=False, squares=True)

    def hybrid_forward(
        self, F: Any, embedding: Any, label: Any, margin_fraction: Any, weight: Any
    ) -> tuple[Any, Any]:
        own = F.take(weight, label, mode="clip")
        distance = 0.5 * F.sum(F.square(embedding - own), axis=1)
        margin = F.broadcast_mul(distance, margin_fraction * self._alpha)
        # -d_j = x . w_j - |w_j|^2 / 2 - |x|^2 / 2. The score omits |x|^2 / 2, which is equal for
        # all classes and does not change the softmax.
        form = Form(unit_rows=False, unit_columns=False, squares=True)

        def with_margin(score: Any) -> tuple[Any, Any]:
            return score - F.BlockGrad(margin), F.ones_like(score)

        arrays = embedding, weight, label
        loss, _ = self.cross_entropy(F, *arrays, form=form, margin=with_margin)
        loss = through_psi(F, loss, -margin, 1.0)
        cosine = F.sum(normalised(F, embedding) * normalised(F, own), axis=1)
        return loss + self._likelihood_weight * distance, F.BlockGrad(cosine)
