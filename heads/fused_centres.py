# SPDX-License-Identifier: Apache-2.0
"""Class centres that the fused operator updates, without an array of their gradients."""

from collections.abc import Mapping
from typing import Any

import mxnet as mx

import ops
from heads.cross_entropy import normalised
from heads.margin_softmax import MarginSoftmax

PERMITTED = ["normface", "coco", "sphereface", "cosface", "arcface", "combined", "adaface"]
PERMITTED += ["magface", "elasticface", "sub_center_arcface"]
"""Heads that change only the true class's cosine; the last one only with one centre per class."""


class FusedCentres(MarginSoftmax):
    """Margin softmax that updates its own class centres; their ``grad_req`` is "null".

    It supports a single rank only: the update bypasses the trainer, which averages, clips and
    checks gradients. `fused_class` derives such a class from a head.

    Parameters
    ----------
    fused_update
        ``momentum`` and ``weight_decay`` of SGD: v = momentum v - lr (gradient + weight_decay w),
        w = w + v.
    """

    def __init__(
        self, *sizes: int, fused_update: Mapping[str, float], sub_centers: int = 1, **kwargs: Any
    ) -> None:
        if sub_centers > 1:
            raise refusal("sub_center_arcface")
        if not ops.fused():
            raise ops.OperatorError(
                "optim.fused_centres: needs the fused operators, got plain ones; use "
                "run.operators=native, which says what is missing"
            )
        super().__init__(*sizes, **kwargs)
        self._update = dict(fused_update)
        self._velocity: mx.nd.NDArray | None = None
        self._saved: list[mx.nd.NDArray] = []  # arrays of the forward pass for the update
        self.weight.grad_req = "null"

    def forward(self, embedding: Any, label: Any, margin_fraction: Any = None) -> Any:
        out = super().forward(embedding, label, margin_fraction)
        if isinstance(embedding, mx.nd.NDArray):
            self._saved = out[2:]
        return out[0], out[1]

    def hybrid_forward(
        self, F: Any, embedding: Any, label: Any, margin_fraction: Any, weight: Any, **state: Any
    ) -> tuple[Any, ...]:
        # A gradient of the centres would be an array as large as they are. The last term of the
        # loss is 0 and carries the embedding's gradient only.
        label = F.cast(label, dtype=self._dtype)
        centre, fixed = F.take(weight, label, mode="clip"), F.BlockGrad(embedding)
        cosine = F.BlockGrad(F.sum(normalised(F, fixed) * normalised(F, centre), axis=1))
        psi, slope = self.target_score(F, cosine, margin_fraction, fixed, **state)
        out = F.face_margin_softmax(fixed, weight, label, psi, slope, scale=self._form.scale)
        loss, here, maximum, total, pull, share = out
        loss = loss + F.sum((embedding - fixed) * F.BlockGrad(pull), axis=1)
        return loss, cosine, fixed, label, psi, slope, here, maximum, total, share

    @property
    def momentum(self) -> dict[str, mx.nd.NDArray]:
        """Momentum of the centres, by parameter name."""
        if self._velocity is None:
            centres = self.weight.list_data()[0]
            self._velocity = mx.nd.zeros(centres.shape, centres.context, dtype=centres.dtype)
        return {"weight": self._velocity}

    def update(self, lr: mx.nd.NDArray) -> None:
        """Update the class centres by one step of SGD on the mean loss of the last forward pass.

        Call it once for each forward pass, after the backward pass.

        Raises
        ------
        RuntimeError
            If no forward pass has run since the last update.
        """
        if not self._saved:
            raise RuntimeError("head.update: no forward pass since the last update")
        (embedding, label, *rest), self._saved = self._saved, []
        centres, momentum = self.weight.list_data()[0], self.momentum["weight"]
        arrays = embedding, centres, label, *rest, momentum, lr
        mx.nd.face_margin_softmax_update(*arrays, scale=self._form.scale, **self._update)


def fused_class(name: str, kind: type) -> type:
    """Return a subclass of a head and `FusedCentres`, which comes before `MarginSoftmax`.

    Raises
    ------
    OperatorError
        If the head does not support it.
    """
    if name not in PERMITTED:
        raise refusal(name)
    return type(kind.__name__, (kind, FusedCentres), {})


def refusal(name: str) -> ops.OperatorError:
    """Return the error for a head whose centres the operator cannot update."""
    return ops.OperatorError(
        "optim.fused_centres: supports only heads that change the true class's cosine alone, got "
        f"{name!r}; set it to false"
    )
