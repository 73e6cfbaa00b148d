# SPDX-License-Identifier: Apache-2.0
"""Base class of the softmax losses on scaled cosines with a margin."""

from functools import partial
from typing import Any

import ops
from heads.cross_entropy import Form
from heads.head import ClassHead
from heads.settings import Scale


class MarginSoftmax(ClassHead):
    """Softmax on the scaled cosines to all class centres, with a margin on the true class.

    The loss is -log softmax_y of the logits: s c_j for other classes j, s psi for the true class y.
    `margin` computes psi from c_y = cos t. With a margin fraction w the true class has the logit
    s ((1 - w) c_y + w psi).

    Parameters
    ----------
    m1
        Factor on the angle to the true class.
    m2
        Margin added to the angle, in radians.
    m3
        Margin subtracted from the cosine.
    scale
        Factor s on the cosines.
    easy_margin
        Whether the margins apply only to angles below pi/2.
    momentum
        Weight of the newest batch in running means.

    Outputs
    -------
    loss, target_cosine : (B,) float32 each
        The loss is at least 0, except for rounding errors of about 1e-6.
    """

    columns: Any = None
    """``columns(F, fraction, psi, cosine, **state)``: see ``columns`` of `cross_entropy`."""

    def __init__(
        self, *sizes: int, scale: Scale = 64.0, sub_centers: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(*sizes, sub_centers=sub_centers, **kwargs)
        self._form = Form(scale, group=sub_centers)

    def margin(self, F: Any, cosine: Any, *arrays: Any, **state: Any) -> tuple[Any, Any]:
        """Return psi and its slope with respect to the cosine; the base class has no margin.

        It is called with the cosine and the embedding. The head's parameters without a gradient
        are keyword arguments.

        Inputs
        ------
        cosine, embedding : (B,), (B, E)
            No gradient flows through them.

        Outputs
        -------
        psi, dpsi : (B,) each
        """
        return cosine, F.ones_like(cosine)

    def hybrid_forward(
        self, F: Any, embedding: Any, label: Any, margin_fraction: Any, weight: Any, **state: Any
    ) -> tuple[Any, ...]:
        if ops.fused():
            ops.refuse_add("head", self.weight)
        fixed = F.BlockGrad(embedding)
        return self.cross_entropy(
            F,
            embedding,
            weight,
            label,
            form=self._form,
            margin=lambda cosine: self.target_score(F, cosine, margin_fraction, fixed, **state),
            columns=self.columns and partial(self.columns, F, margin_fraction, **state),
        )

    def target_score(
        self, F: Any, cosine: Any, fraction: Any, embedding: Any, **state: Any
    ) -> tuple[Any, Any]:
        """Return psi and its slope with a fraction of the margin, (B,) each."""
        psi, slope = self.margin(F, cosine, embedding, **state)
        psi = cosine + F.broadcast_mul(psi - cosine, fraction)
        return psi, 1.0 + F.broadcast_mul(slope - 1.0, fraction)
