# SPDX-License-Identifier: Apache-2.0
"""Class centres that the fused operator updates without allocating an array of gradients."""

from collections.abc import Mapping
from typing import Any

import mxnet as mx

import ops
from heads.cross_entropy import normalised
from heads.margin_softmax import MarginSoftmax

PERMITTED = ["normface", "coco", "sphereface", "cosface", "arcface", "combined", "adaface"]
PERMITTED += ["magface", "elasticface", "sub_center_arcface"]
"""Heads that a fused update supports, because they change only the cosine of the true class.

``sub_center_arcface`` is supported only with one centre per class."""
_DEFAULT_CENTRES = {"sub_center_arcface": 3}


class FusedCentres(MarginSoftmax):
    """Margin softmax that updates its own class centres, without an array of their gradients.

    The ``grad_req`` of the centres is "null". A run must have a single rank, because the update
    bypasses the trainer, which averages gradients over the ranks, clips them and checks them.
    `fused_class` combines this class with a head.

    Parameters
    ----------
    fused_update
        ``momentum`` and ``weight_decay`` of the SGD update of the centres w with velocity v:
        v = momentum v - lr (gradient + weight_decay w), w = w + v.
    """

    def __init__(
        self, *sizes: int, fused_update: Mapping[str, float], sub_centers: int = 1, **kwargs: Any
    ) -> None:
        if sub_centers > 1:
            raise refusal("sub_center_arcface")
        require_operators()
        super().__init__(*sizes, **kwargs)
        if self.columns is not None:
            raise filter_refusal()
        self._update = dict(fused_update)
        self._velocity: mx.nd.NDArray | None = None
        self._saved: list[mx.nd.NDArray] = []  # results of `forward` that `update` needs
        self.weight.grad_req = "null"

    def forward(self, embedding: Any, label: Any, margin_fraction: Any = None) -> Any:
        out = super().forward(embedding, label, margin_fraction)
        if isinstance(embedding, mx.nd.NDArray):
            self._saved = out[2:]
        return out[0], out[1]

    def hybrid_forward(
        self, F: Any, embedding: Any, label: Any, margin_fraction: Any, weight: Any, **state: Any
    ) -> tuple[Any, ...]:
        # Autograd must not compute the gradient of the centres, an array as large as the centres.
        # So the gradient of the embedding is computed here, and a term is added to the loss whose
        # value is 0 and whose derivative with respect to the embedding is this gradient.
        label = F.cast(label, dtype=self._dtype)
        centre, fixed = F.take(weight, label, mode="clip"), F.BlockGrad(embedding)
        cosine = F.BlockGrad(F.sum(normalised(F, fixed) * normalised(F, centre), axis=1))
        psi, slope = self.target_score(F, cosine, margin_fraction, fixed, **state)
        out = F.face_margin_softmax(fixed, weight, label, psi, slope, scale=self.form.scale)
        loss, here, maximum, total, pull, share = out
        loss = loss + F.sum((embedding - fixed) * F.BlockGrad(pull), axis=1)
        loss = self.finish_loss(F, embedding, loss, cosine, margin_fraction)
        return loss, cosine, fixed, label, psi, slope, here, maximum, total, share

    @property
    def momentum(self) -> dict[str, mx.nd.NDArray]:
        """SGD momentum of the class centres, as a mapping from parameter name to array.

        The mapping is empty if the factor on the learning rate of the class centres is 0.
        """
        if not self.weight.lr_mult:
            return {}
        if self._velocity is None:
            centres = self.weight.list_data()[0]
            self._velocity = mx.nd.zeros(centres.shape, centres.context, dtype=centres.dtype)
        return {"weight": self._velocity}

    def update(self, lr: mx.nd.NDArray) -> None:
        """Update the class centres by one step of SGD on the mean loss of the last forward pass.

        Call this method once after each forward and backward pass.

        Raises
        ------
        RuntimeError
            If no forward pass has run since the last update.
        """
        if not self._saved:
            raise RuntimeError(
                "head.update: no forward pass since the last update; run a forward and a backward "
                "pass before each update"
            )
        (embedding, label, *rest), self._saved = self._saved, []
        centres, momentum = self.weight.list_data()[0], self.momentum["weight"]
        if self.weight.lr_mult != 1.0:
            lr = lr * self.weight.lr_mult
        arrays = embedding, centres, label, *rest, momentum, lr
        mx.nd.face_margin_softmax_update(*arrays, scale=self.form.scale, **self._update)


def fused_class(name: str, kind: type) -> type:
    """Return a subclass of a head in which the fused operator updates the class centres.

    The subclass inherits from the head and then from `FusedCentres`, so that `FusedCentres` comes
    before `MarginSoftmax` in the method resolution order.

    Raises
    ------
    OperatorError
        If the head does not support a fused update.
    """
    if name not in PERMITTED:
        raise refusal(name)
    return type(kind.__name__, (kind, FusedCentres), {})


def require_fused(name: str, options: Mapping[str, Any]) -> None:
    """Raise OperatorError unless a fused update is possible for a sharded head and its settings.

    ``options`` holds at least the settings of the head that differ from their defaults.
    """
    if name not in PERMITTED or options.get("sub_centers", _DEFAULT_CENTRES.get(name, 1)) > 1:
        raise refusal(name)
    if options.get("interclass_filter"):
        raise filter_refusal()
    require_operators()


def require_operators() -> None:
    """Raise OperatorError if the process uses the plain operators."""
    if not ops.fused():
        raise ops.OperatorError(
            "optim.fused_centres: needs the fused operators, got the plain MXNet operators; "
            "set run.operators=native to see why the fused operators are not available"
        )


def filter_refusal() -> ops.OperatorError:
    """Return the error for the setting ``interclass_filter``, which no fused update supports."""
    return ops.OperatorError(
        "optim.fused_centres: cannot be combined with head.interclass_filter, got both; "
        "set optim.fused_centres=false or head.interclass_filter=0"
    )


def refusal(name: str) -> ops.OperatorError:
    """Return the error for a head whose class centres the fused operator cannot update."""
    return ops.OperatorError(
        "optim.fused_centres: supports only heads that have one centre per class and change only "
        f"the true class's cosine, got head.name={name!r}; set optim.fused_centres=false"
    )
