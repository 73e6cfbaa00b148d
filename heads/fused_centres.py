# SPDX-License-Identifier: Apache-2.0
"""Class centres that the fused operator updates itself, without an array of their gradients."""

from collections.abc import Mapping

import mxnet as mx

import ops
from heads.cross_entropy import normalised
from heads.margin_softmax import MarginSoftmax

PERMITTED = ("normface", "coco", "sphereface", "cosface", "arcface", "combined", "adaface")
PERMITTED += ("magface", "elasticface", "sub_center_arcface")
"""Heads that change the true class's cosine alone, the last one with one centre for each class."""


class FusedCentres(MarginSoftmax):
    """Margin softmax that updates its class centres, whose ``grad_req`` is "null".

    For one rank only: the step does not pass through a trainer, nor through what averages, clips
    or checks gradients there. `fused_class` makes such a class of a head.

    Parameters
    ----------
    fused_update
        ``momentum`` and ``weight_decay`` of SGD: v = momentum v - rate (gradient + weight_decay w),
        w = w + v.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        fused_update: Mapping[str, float],
        sub_centers: int = 1,
        **kwargs,
    ) -> None:
        if sub_centers > 1:
            raise refusal("sub_center_arcface")
        if not ops.fused():
            raise ops.OperatorError(
                "optim.fused_centres: needs the fused operators, got plain ones; use "
                "run.operators=native, which says what is missing"
            )
        super().__init__(num_classes, embedding_size, **kwargs)
        self._update = dict(fused_update)
        self._velocity: mx.nd.NDArray | None = None
        self._forward: list[mx.nd.NDArray] = []  # what the update needs of the forward pass
        self.weight.grad_req = "null"

    def forward(self, embedding, label, margin_fraction=None):
        out = super().forward(embedding, label, margin_fraction)
        if isinstance(embedding, mx.nd.NDArray):
            self._forward = out[2:]
        return out[0], out[1]

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight, **state):
        # The centres have no gradient here, which would be an array as large as they are. The term
        # behind the loss is 0 and carries the embedding's.
        label = F.cast(label, dtype=self._dtype)
        centre, fixed = F.take(weight, label, mode="clip"), F.BlockGrad(embedding)
        cosine = F.BlockGrad(F.sum(normalised(F, fixed) * normalised(F, centre), axis=1))
        psi, slope = self._target_score(F, cosine, margin_fraction, fixed, **state)
        out = F.face_margin_softmax(fixed, weight, label, psi, slope, scale=self._form.scale)
        loss, here, maximum, total, pull, share = out
        loss = loss + F.sum((embedding - fixed) * F.BlockGrad(pull), axis=1)
        return loss, cosine, fixed, label, psi, slope, here, maximum, total, share

    @property
    def momentum(self) -> dict[str, mx.nd.NDArray]:
        """Return the momentum of the centres, by parameter."""
        if self._velocity is None:
            centres = self.weight.list_data()[0]
            self._velocity = mx.nd.zeros(centres.shape, centres.context, dtype=centres.dtype)
        return {"weight": self._velocity}

    def update(self, rate: mx.nd.NDArray) -> None:
        """Move the class centres by one step of SGD for the mean loss of the last forward pass.

        Called once for each forward pass, after the backward pass.

        Raises
        ------
        RuntimeError
            If there has been no forward pass since the last update.
        """
        if not self._forward:
            raise RuntimeError("head.update: there was no forward pass to update for")
        embedding, label, *rest = self._forward
        self._forward = []
        mx.nd.face_margin_softmax_update(
            embedding,
            self.weight.list_data()[0],
            label,
            *rest,
            self.momentum["weight"],
            rate,
            scale=self._form.scale,
            **self._update,
        )


def fused_class(name: str, kind: type[MarginSoftmax]) -> type[FusedCentres]:
    """Return a head's class with `FusedCentres` between it and `MarginSoftmax`.

    Raises
    ------
    OperatorError
        If the head does not permit it.
    """
    if name not in PERMITTED:
        raise refusal(name)
    return type(kind.__name__, (kind, FusedCentres), {})


def refusal(name: str) -> ops.OperatorError:
    """Return the error for a head whose centres the operator cannot update."""
    return ops.OperatorError(
        "optim.fused_centres: is for heads that change the true class's cosine alone, got "
        f"{name!r}; set it to false"
    )
