# SPDX-License-Identifier: Apache-2.0
"""Build the heads, networks and operators that benchmarks/steps/mxnet_steps.py times."""

from __future__ import annotations

from typing import Any

from benchmarks.harness import baselines, inputs


def our_head(num_classes: int, embedding_size: int, fused: bool) -> Any:
    """Build our ArcFace head; if ``fused``, its method `update` updates the class centres."""
    from heads import build_head

    use_operators("ours")
    step = {"momentum": inputs.MOMENTUM, "weight_decay": inputs.WEIGHT_DECAY} if fused else None
    options: dict[str, Any] = {"m2": inputs.MARGIN, "scale": inputs.SCALE, "fused_update": step}
    head = build_head("arcface", num_classes, embedding_size, **options)
    head.initialize()
    head.hybridize(static_alloc=True, static_shape=True)
    return head


def use_operators(kind: str) -> None:
    """Select Gluon's operators for the kind "ours plain", our compiled ones for any other kind."""
    import ops

    ops.use("plain" if kind == "ours plain" else "native")


def gluonfr_head(num_classes: int, embedding_size: int) -> tuple[Any, Any]:
    """Build the blocks of GluonFR's ArcFace head: the layer that computes cosines, and the loss."""
    baselines.use_folder()
    from gluonfr.loss import ArcLoss
    from gluonfr.nn.basic_blocks import NormDense

    dense = NormDense(num_classes, weight_norm=True, feature_norm=True, in_units=embedding_size)
    dense.initialize()
    return dense, ArcLoss(num_classes, inputs.MARGIN, inputs.SCALE, easy_margin=False)


def gluonfr_net(name: str, num_classes: int) -> tuple[Any, Any]:
    """Build a GluonFR network, which outputs cosines, and its loss; both use static memory."""
    baselines.use_folder()
    import mxnet as mx
    from gluonfr.loss import ArcLoss
    from gluonfr.model_zoo import get_model

    net = get_model(name, classes=num_classes, weight_norm=True, feature_norm=True)
    net.initialize(init=mx.init.MSRAPrelu())
    arc = ArcLoss(num_classes, inputs.MARGIN, inputs.SCALE, easy_margin=False)
    for block in (net, arc):
        block.hybridize(static_alloc=True, static_shape=True)
    return net, arc


def operator_block(kind: str, operator: str, channels: int) -> Any:
    """Build the Gluon block that computes one operator.

    The docstring of `mxnet_steps.operator_step` describes ``kind`` and ``operator``.
    """
    from mxnet.gluon import nn

    from nets import blocks

    if kind == "ours":
        use_operators(kind)
        return blocks.PReLU(channels) if operator == "prelu" else _norm_prelu(channels)
    if operator == "prelu":
        return nn.PReLU(in_channels=channels)
    both = nn.HybridSequential()
    both.add(nn.BatchNorm(in_channels=channels), nn.PReLU(in_channels=channels))
    return both


def _norm_prelu(channels: int) -> Any:
    from mxnet import gluon, init

    from nets import blocks

    class NormPReLU(gluon.nn.BatchNorm):
        """Fused batch normalisation and PReLU, as in `nets.blocks.ConvNormPReLU`."""

        def __init__(self) -> None:
            super().__init__(in_channels=channels)
            self.alpha = self.params.get("alpha", shape=(channels,), init=init.Constant(0.25))

        def hybrid_forward(
            self,
            F: Any,
            x: Any,
            gamma: Any,
            beta: Any,
            running_mean: Any,
            running_var: Any,
            *,
            alpha: Any,
        ) -> Any:
            values = (gamma, beta, running_mean, running_var, alpha)
            return F.face_batch_norm(x, *values, prelu=True, **blocks.STATISTICS)[0]

    return NormPReLU()
