# SPDX-License-Identifier: Apache-2.0
"""Softmax cross-entropy on scaled cosines with a margin; all class centres on every rank."""

from collections.abc import Callable
from functools import partial

import ops
from heads.cross_entropy import Form, cross_entropy
from heads.head import ClassHead


class MarginSoftmax(ClassHead):
    """Softmax of the scaled cosines to all class centres, with a margin on the true class.

    -log softmax_y of the logits s c_j, that of the true class y s psi: c_j is the cosine to the
    centre of class j, psi what `margin` makes of c_y = cos t. With the share w of a warm-up it is
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
        Whether all margins are confined to angles below pi/2.
    momentum
        Share of the newest batch in running means.

    Outputs
    -------
    loss, target_cosine : (B,) float32 each
        The loss is not below 0 but for rounding, by some 1e-6.
    """

    def __init__(
        self, num_classes: int, embedding_size: int, *, scale: float, sub_centers: int = 1, **kwargs
    ) -> None:
        super().__init__(num_classes, embedding_size, sub_centers=sub_centers, **kwargs)
        self._form = Form(scale, group=sub_centers)

    def margin(self, F, cosine, embedding):
        """Return psi and its slope towards the cosine: here no margin.

        Parameters of the head without a gradient follow as keyword arguments.

        Inputs
        ------
        cosine, embedding : (B,), (B, E)
            No gradient flows through them.

        Outputs
        -------
        psi, dpsi : (B,) each
        """
        return cosine, F.ones_like(cosine)

    columns: Callable[..., tuple] | None = None
    """``columns(F, fraction, psi, cosine, **state)``: see ``columns`` of `cross_entropy`."""

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight, **state):
        if ops.fused():
            ops.refuse_add("head", self.weight)
        fixed = F.BlockGrad(embedding)
        return cross_entropy(
            F,
            embedding,
            weight,
            label,
            num_classes=self._num_classes,
            form=self._form,
            margin=lambda cosine: self._target_score(F, cosine, margin_fraction, fixed, **state),
            columns=self.columns and partial(self.columns, F, margin_fraction, **state),
            dtype=self._dtype,
        )

    def _target_score(self, F, cosine, fraction, embedding, **state):
        """Return psi and its slope with this share of the margin, (B,) each."""
        psi, slope = self.margin(F, cosine, embedding, **state)
        psi = cosine + F.broadcast_mul(psi - cosine, fraction)
        return psi, 1.0 + F.broadcast_mul(slope - 1.0, fraction)
