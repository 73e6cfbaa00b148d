# SPDX-License-Identifier: Apache-2.0
"""Softmax cross-entropy on scaled cosines with a margin; all class centres on every rank."""

import math
from collections.abc import Callable
from functools import partial

import mxnet as mx
import numpy as np
from mxnet import gluon, init

import ops
from heads.checks import check_count, check_number
from heads.cross_entropy import Form, cross_entropy, normalised
from heads.margins import combined_margin


class MarginSoftmax(gluon.HybridBlock):
    """Cosines to all class centres, a margin on the true one, scale, softmax cross-entropy.

    Parameters
    ----------
    num_classes
        Number of classes C.
    embedding_size
        Length E of the embedding.
    m1, m2, m3
        Margins: factor on the angle, radians added to it, amount taken off the cosine.
    scale
        Factor on the cosines before the softmax.
    easy_margin
        Whether the margins are confined to angles below pi/2: see `heads.margins.confined`.
    sub_centers
        Centres of each class K: the nearest one counts. They lie side by side in ``weight``.

    Inputs
    ------
    embedding : (B, E) float32
        Of any length; normalised here.
    label : (B,) float32 or int32
        Class of each image, 0 to C - 1.
    margin_fraction : (1,) float32, optional
        From 0 (normalised softmax) to 1 (the full margin, the default), for a warm-up: the true
        class gets (1 - w) cos t + w psi. An input, so a changed value does not trace again. A
        head called inside another hybridized block needs it given.

    Outputs
    -------
    loss : (B,) float32
        Not below 0 but for rounding, by some 1e-6.
    target_cosine : (B,) float32
        Cosine to the true class's centre without margin and scale; no gradient flows through it.

    Notes
    -----
    Deng et al., "ArcFace", arXiv:1801.07698, equation 4.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        m1: float = 1.0,
        m2: float = 0.0,
        m3: float = 0.0,
        scale: float = 64.0,
        easy_margin: bool = False,
        sub_centers: int = 1,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self._group = sub_centers
        self._num_classes = num_classes
        self._scale = scale
        self._dtype = "float32"
        self._margins = {"m1": m1, "m2": m2, "m3": m3, "easy_margin": easy_margin}
        self._step: dict[str, float] = {}  # of a head that updates its own centres
        self._velocity: mx.nd.NDArray | None = None
        self._forward: list[mx.nd.NDArray] = []  # what the update needs of it
        with self.name_scope():
            self.weight = self.params.get(
                "weight", shape=(num_classes * sub_centers, embedding_size), init=init.Normal(0.01)
            )

    def cast(self, dtype):
        super().cast(dtype)
        self._dtype = np.dtype(dtype).name

    def forward(self, embedding, label, margin_fraction=None):
        if margin_fraction is None:
            margin_fraction = mx.nd.ones((1,), ctx=embedding.context, dtype=self._dtype)
        out = super().forward(embedding, label, margin_fraction)
        if self._step and isinstance(embedding, mx.nd.NDArray):
            self._forward = out[2:]
        return out[0], out[1]

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight, **state):
        if not self._step:
            if ops.fused():
                ops.refuse_add("head", self.weight)
            fixed = F.BlockGrad(embedding)
            return cross_entropy(
                F,
                embedding,
                weight,
                label,
                self._num_classes,
                Form(self._scale, group=self._group),
                lambda cosine: self._margin(F, cosine, margin_fraction, fixed, state),
                self._columns and partial(self._columns, F, margin_fraction, **state),
                dtype=self._dtype,
            )
        # The centres have no gradient here, which would be an array as large as they are. The term
        # behind the loss is 0 and carries the embedding's.
        label = F.cast(label, dtype=self._dtype)
        centre, fixed = F.take(weight, label, mode="clip"), F.BlockGrad(embedding)
        cosine = F.BlockGrad(F.sum(normalised(F, fixed) * normalised(F, centre), axis=1))
        psi, slope = self._margin(F, cosine, margin_fraction, fixed, state)
        out = F.face_margin_softmax(fixed, weight, label, psi, slope, scale=self._scale)
        loss, here, maximum, total, pull, share = out
        loss = loss + F.sum((embedding - fixed) * F.BlockGrad(pull), axis=1)
        return loss, cosine, fixed, label, psi, slope, here, maximum, total, share

    def _margin(self, F, cosine, fraction, embedding, state):
        """Return psi and its slope with this share of the margin, (B,) each."""
        psi, slope = self._full_margin(F, cosine, F.BlockGrad(embedding), **state)
        psi = cosine + F.broadcast_mul(psi - cosine, fraction)
        return psi, 1.0 + F.broadcast_mul(slope - 1.0, fraction)

    def _full_margin(self, F, cosine, embedding):
        """Return psi and its slope, (B,) each; others than this class have margins by image.

        Inputs
        ------
        cosine, embedding : (B,), (B, E)
            No gradient flows through them.
        """
        return combined_margin(F, cosine, **self._margins)

    _columns: Callable[..., tuple] | None = None
    """``_columns(F, fraction, psi, cosine, **state)``: see ``columns`` of `cross_entropy`."""

    _may_step = True  # whether all else is as `update` takes it

    def fuse_update(self, momentum: float, weight_decay: float) -> None:
        """Let the class centres be updated by `update`, without an array of their gradients.

        For one rank only: the step does not pass through a trainer, nor through what averages,
        clips or checks gradients there. The centres' ``grad_req`` becomes "null".

        Parameters
        ----------
        momentum, weight_decay
            Of SGD: v = momentum v - rate (gradient + weight_decay w), w = w + v.

        Raises
        ------
        OperatorError
            If the fused operators are not in use, or the head does not permit it.
        """
        if self._columns or self._group > 1 or not self._may_step:
            raise ops.OperatorError(
                "optim.fused_centres: is for heads that change the true class's cosine alone, got "
                f"{type(self).__name__}; set it to false"
            )
        if not ops.fused():
            raise ops.OperatorError(
                "optim.fused_centres: needs the fused operators, got plain ones; use "
                "run.operators=native, which says what is missing"
            )
        self._step = {"momentum": momentum, "weight_decay": weight_decay}
        self.weight.grad_req = "null"
        self._clear_cached_op()

    @property
    def momentum(self) -> dict[str, mx.nd.NDArray]:
        """Return the momentum of a head that updates its own centres, by parameter; else {}."""
        if self._step and self._velocity is None:
            centres = self.weight.list_data()[0]
            self._velocity = mx.nd.zeros(centres.shape, centres.context, dtype=centres.dtype)
        return {"weight": self._velocity} if self._step else {}

    def update(self, rate: mx.nd.NDArray) -> None:
        """Move the class centres by one step of SGD for the mean loss of the last forward pass.

        Called once for each forward pass, after the backward pass.

        Inputs
        ------
        rate : (1,) float32
            Learning rate.

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
            scale=self._scale,
            **self._step,
        )


def check_size(num_classes: int, embedding_size: int, scale: float) -> dict[str, float]:
    """Return what all heads of scaled cosines take, as keyword arguments.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.
    """
    return {
        "num_classes": check_count(
            "num_classes", num_classes, 2, advice="a softmax needs two to choose from"
        ),
        "embedding_size": check_count(
            "embedding_size", embedding_size, 1, advice="give that of the net"
        ),
        "scale": check_number(
            "head.scale", scale, 0, math.inf, open_low=True, advice="30 to 64 is usual"
        ),
    }


def check_margins(**margins: float) -> dict[str, float]:
    """Return margins m1, m2, m3, those that are given, as keyword arguments.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.
    """
    checks = {
        "m1": dict(high=4, open_low=True, advice="1 leaves the angle as it is"),
        "m2": dict(high=math.pi / 2, advice="it is in radians, 0.5 is usual"),
        "m3": dict(high=1, advice="0.35 is usual"),
    }
    return {
        name: check_number(f"head.{name}", value, 0, **checks[name])
        for name, value in margins.items()
    }
