# SPDX-License-Identifier: Apache-2.0
"""Base class of the softmax losses on scaled cosines with a margin."""

from functools import partial
from typing import Annotated, Any

import ops
from heads.cross_entropy import Form, column_numbers
from heads.settings import Scale
from heads.sharded import ShardedClasses
from ranges import Within

CosineLimit = Annotated[float, Within(0, 1, "the usual threshold is 0.4; 0 filters no class")]
FILTERED_ELSEWHERE = {
    "interclass_filter": "this loss itself changes the logits of similar classes; "
    "use a loss such as head.name=arcface"
}
"""Reason why a head with its own method ``columns`` refuses the setting ``interclass_filter``."""


class MarginSoftmax(ShardedClasses):
    """Softmax on the scaled cosines to all class centres, with a margin on the true class.

    The loss of an image is the negative logarithm of the softmax probability of its true class y.
    Another class j has the logit s c_j, where c_j is the cosine of the embedding to the centre of
    class j and s is ``scale``. The true class has the logit s psi; the method `margin` computes psi
    from c_y. With a margin fraction w the logit of the true class is s ((1 - w) c_y + w psi).

    Parameters
    ----------
    m1
        Factor on the angle between an embedding and the centre of its class.
    m2
        Margin added to the angle between an embedding and the centre of its class, in radians.
    m3
        Margin subtracted from the cosine between an embedding and the centre of its class.
    scale
        Factor on the cosines: logit = scale * cosine.
    easy_margin
        Whether an image gets the margin only if its angle to the centre of its class is below pi/2.
    interclass_filter
        Cosine above which another class counts as the same person under a wrong label: its logit
        becomes 0 and has no gradient, so that wrong labels do not push images of one person apart.
        0: no filter. InsightFace's arcface_torch calls this ``interclass_filtering_threshold``.
    momentum
        Weight of the newest batch in a running statistic:
        new = (1 - momentum) * old + momentum * batch.

    Outputs
    -------
    loss, target_cosine : (B,) float32 each
        The loss is at least 0, except for rounding errors of about 1e-6.
    """

    columns: Any
    """Method that changes the scores of the other classes, or None if a loss leaves them unchanged.

    It has the signature ``columns(F, fraction, psi, cosine, **state)`` and returns what the
    parameter ``columns`` of `heads.cross_entropy.cross_entropy` requires."""

    def __init__(
        self,
        *sizes: int,
        scale: Scale = 64.0,
        sub_centers: int = 1,
        interclass_filter: CosineLimit = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, sub_centers=sub_centers, **kwargs)
        self.form = Form(scale, group=sub_centers)
        if interclass_filter:
            self._interclass_filter, self.columns = interclass_filter, self._filter

    def margin(self, F: Any, cosine: Any, *arrays: Any, **state: Any) -> tuple[Any, Any]:
        """Return psi, the cosine of the true class after the margin, and its slope dpsi/dcosine.

        The base class has no margin: psi is the cosine. ``state`` holds the parameters of the head
        that have no gradient.

        Inputs
        ------
        cosine : (B,)
            Cosine to the centre of the true class for each of the B images; without gradient.
        embedding : (B, E)
            Embeddings of E dimensions; without gradient.

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
        loss, cosine = self.cross_entropy(
            F,
            embedding,
            weight,
            label,
            form=self.form,
            margin=lambda cosine: self.target_score(F, cosine, margin_fraction, fixed, **state),
            columns=self.columns and partial(self.columns, F, margin_fraction, **state),
        )
        return self.finish_loss(F, embedding, loss, cosine, margin_fraction), cosine

    def _filter(
        self, F: Any, fraction: Any, psi: Any, cosine: Any, **state: Any
    ) -> tuple[Any, Any]:
        """Return what ``columns`` must return to set the logits of filtered classes to 0."""
        numbers = column_numbers(F, fraction, [0.0, 0.0, 0.0], [0.0, 0.0], 1.0)
        return F.ones_like(psi) * self._interclass_filter, numbers

    def target_score(
        self, F: Any, cosine: Any, fraction: Any, embedding: Any, **state: Any
    ) -> tuple[Any, Any]:
        """Return psi and its slope dpsi/dcosine with only a fraction of the margin.

        Both have one value per image. The fraction 0 gives the cosine itself, 1 the full margin.
        """
        psi, slope = self.margin(F, cosine, embedding, **state)
        psi = cosine + F.broadcast_mul(psi - cosine, fraction)
        return psi, 1.0 + F.broadcast_mul(slope - 1.0, fraction)
