# SPDX-License-Identifier: Apache-2.0
"""Layers of networks in their forms: fused for training, plain for a CPU or a GPU.

Each function takes the Gluon blocks that hold the parameters and computes what they would compute
one after the other. The fused operators are those of training alone; they get and give arrays in
the plain order of (B, C, H, W). Between dense convolutions, which oneDNN computes in blocks of
channels, the copies from one order to the other cost more than is won: such nets pass
``fused=False``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mxnet import autograd, gluon, sym

from ops import choice

if TYPE_CHECKING:
    from mxnet.gluon import nn


def prelu(F: Any, x: Any, alpha: Any, *, parameter: gluon.Parameter, fused: bool = True) -> Any:
    """Rectify with one slope per channel: max(x, 0) + alpha * min(x, 0).

    Three forms of one function of the same parameter:

    - Where the fused operators are used, in training: one of them.
    - On a GPU: MXNet's own ``LeakyReLU(act_type="prelu")``, one kernel forward and one backward.
      Its slow backward pass is that of a slope shared by all channels, as in Gluon's ``PReLU``
      (apache/mxnet, issue 10972).
    - On a CPU: ``alpha * x + (1 - alpha) * relu(x)``, where both products are depthwise 1x1
      convolutions. oneDNN vectorises those, their weight gradients, the rectifier and the sum, and
      keeps its blocked memory layout from the convolution before to the one after. ``LeakyReLU``
      is neither vectorised nor blocked there. On a GPU MXNet 1.9.1 gives every convolution to
      cuDNN (src/operator/nn/convolution.cu): six calls with as many groups as channels, four times
      the memory traffic, and from Ampere on products rounded to TF32, a relative error of up to
      4.9e-4 where a rectifier is exact.

    Parameters
    ----------
    alpha
        Values of the slopes, (C,).
    parameter
        The parameter that they come from.
    fused
        Whether a fused operator may be used.
    """
    if fused and _training():
        choice.refuse_add("PReLU", parameter)
        return F.face_prelu(x, alpha)
    if choice.for_gpu():
        return F.LeakyReLU(x, gamma=alpha, act_type="prelu")
    linear = _scale_channels(F, x, alpha, parameter.shape[0])
    rectified = _scale_channels(F, F.Activation(x, act_type="relu"), 1 - alpha, parameter.shape[0])
    return F.elemwise_add(linear, rectified)


def batch_norm(
    F: Any,
    x: Any,
    values: Sequence[Any],
    *,
    norm: nn.BatchNorm,
    plain: Callable[..., Any],
    fused: bool = True,
) -> Any:
    """Normalise over the batch.

    Parameters
    ----------
    values
        Values of gamma, beta, running mean and running variance of ``norm``, (C,) each.
    norm
        The block that holds them.
    plain
        Computes the same of ``(F, x, *values)`` where no fused operator is used.
    fused
        Whether a fused operator may be used.
    """
    if not (fused and _training()):
        return plain(F, x, *values)
    choice.refuse_add("BatchNorm", norm.gamma, norm.beta)
    return F.face_batch_norm(x, *values, prelu=False, **_statistics(norm))[0]


def conv_norm(F: Any, x: Any, conv: nn.Conv2D, norm: nn.BatchNorm, *, fused: bool = True) -> Any:
    """Convolve without bias, then normalise over the batch."""
    return norm(_convolve(F, x, conv, fused))


def conv_norm_prelu(
    F: Any,
    x: Any,
    conv: nn.Conv2D,
    norm: nn.BatchNorm,
    act: gluon.HybridBlock,
    *,
    fused: bool = True,
) -> Any:
    """Convolve without bias, normalise over the batch, rectify with the slopes of ``act.alpha``."""
    if not (fused and _training()):
        return act(conv_norm(F, x, conv, norm, fused=fused))
    choice.refuse_add("convolution and PReLU", conv.weight, norm.gamma, norm.beta, act.alpha)
    learned = [norm.gamma, norm.beta, norm.running_mean, norm.running_var, act.alpha]
    if _is_depthwise(conv) and choice.fused_scores():
        values = [_values(F, x, parameter) for parameter in (conv.weight, *learned)]
        (stride, _) = conv._kwargs["stride"]
        return F.face_depthwise_norm(x, *values, stride=stride, **_statistics(norm))[0]
    y = _convolve(F, x, conv, fused)
    values = [_values(F, x, parameter) for parameter in learned]
    return F.face_batch_norm(y, *values, prelu=True, **_statistics(norm))[0]


def _training() -> bool:
    """Return whether the fused operators of training are used: in a graph of training."""
    return autograd.is_training() and choice.fused()


def _convolve(F: Any, x: Any, conv: nn.Conv2D, fused: bool) -> Any:
    # The convolutions of training are for the CPU alone, as the margin softmax of any scores is.
    if fused and _training() and choice.fused_scores() and _is_pointwise(conv):
        choice.refuse_add("convolution", conv.weight)
        return F.face_pointwise(x, _values(F, x, conv.weight))
    return conv(x)


def _is_pointwise(conv: nn.Conv2D) -> bool:
    shape = conv._kwargs
    plain = (shape["kernel"], shape["stride"], shape["pad"]) == ((1, 1), (1, 1), (0, 0))
    return plain and shape["num_group"] == 1


def _is_depthwise(conv: nn.Conv2D) -> bool:
    shape = conv._kwargs
    channels, filters, *_ = conv.weight.shape
    single = filters == 1 and shape["num_group"] == channels
    return single and (shape["kernel"], shape["pad"]) == ((3, 3), (1, 1))


def _scale_channels(F: Any, x: Any, factor: Any, channels: int) -> Any:
    weight = F.reshape(factor, shape=(-1, 1, 1, 1))
    return F.Convolution(
        x, weight, kernel=(1, 1), num_filter=channels, num_group=channels, no_bias=True
    )


def _statistics(norm: nn.BatchNorm) -> dict[str, float]:
    return {"epsilon": norm._kwargs["eps"], "momentum": norm._kwargs["momentum"]}


def _values(F: Any, x: Any, parameter: gluon.Parameter) -> Any:
    """Return the values of a child block's parameter, as ``hybrid_forward`` gets its own."""
    return parameter.var() if F is sym else parameter.data(x.context)
