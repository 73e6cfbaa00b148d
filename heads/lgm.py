# SPDX-License-Identifier: Apache-2.0
"""Large-margin Gaussian mixture loss: classes as Gaussians, the margin on their distance."""

import math

import numpy as np
from mxnet import gluon, init

from heads.checks import check_number
from heads.cross_entropy import Form, cross_entropy, normalised, through_psi
from heads.softmax import check_classes


class GaussianMixture(gluon.HybridBlock):
    """Softmax on the squared distances to class means, with a margin: see `lgm`.

    Inputs and outputs are those of `heads.margin_softmax.MarginSoftmax`.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        alpha: float,
        likelihood_weight: float,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self._num_classes, self._dtype = num_classes, "float32"
        self._alpha, self._likelihood_weight = alpha, likelihood_weight
        with self.name_scope():
            self.weight = self.params.get(
                "weight", shape=(num_classes, embedding_size), init=init.Xavier()
            )

    def cast(self, dtype):
        super().cast(dtype)
        self._dtype = np.dtype(dtype).name

    def forward(self, embedding, label, margin_fraction=None):
        if margin_fraction is None:
            margin_fraction = embedding.ones_like().reshape((-1,)).slice_axis(0, 0, 1)
        return super().forward(embedding, label, margin_fraction)

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight):
        own = F.take(weight, label, mode="clip")  # (B, E)
        distance = 0.5 * F.sum(F.square(embedding - own), axis=1)
        margin = margin_fraction * self._alpha
        # -d_j = x . w_j - |w_j|^2 / 2 - |x|^2 / 2, whose last term is the same for all classes.
        loss, _ = cross_entropy(
            F,
            embedding,
            weight,
            label,
            self._num_classes,
            Form(unit_rows=False, unit_columns=False, squares=True),
            lambda score: (
                score - F.broadcast_mul(F.BlockGrad(distance), margin),
                F.ones_like(score),
            ),
            dtype=self._dtype,
        )
        loss = through_psi(F, loss, -F.broadcast_mul(distance, margin), 1.0)
        cosine = F.sum(normalised(F, embedding) * normalised(F, own), axis=1)
        return loss + self._likelihood_weight * distance, F.BlockGrad(cosine)


def lgm(
    num_classes: int,
    embedding_size: int,
    *,
    alpha: float = 0.1,
    likelihood_weight: float = 0.1,
) -> GaussianMixture:
    """Build a softmax of Gaussian classes with a margin and a likelihood term.

    With d_j = |x - w_j|^2 / 2: cross-entropy of the logits -d_j, that of the true class
    -(1 + alpha) d_y, plus likelihood_weight d_y.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    alpha
        Margin, from 0.
    likelihood_weight
        Lambda, from 0.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Wan et al., "Rethinking Feature Distribution for Loss Functions in Image Classification",
    arXiv:1803.02988, equations 11 to 14, with the identity for all covariances and equal priors.
    """
    checked = check_classes(num_classes, embedding_size, False)
    del checked["use_bias"]
    return GaussianMixture(
        **checked,
        alpha=check_number("head.alpha", alpha, 0, math.inf, advice="0.01 to 1 is usual"),
        likelihood_weight=check_number(
            "head.likelihood_weight", likelihood_weight, 0, math.inf, advice="0.1 is usual"
        ),
    )
