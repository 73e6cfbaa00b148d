# SPDX-License-Identifier: Apache-2.0
"""Network layers that choose between fused and plain operators.

Each function returns the same result as calls of the corresponding Gluon blocks in sequence.  If
`ops.choice.use` chose fused operators, training uses them.  So does inference on a CPU inside
`ops.choice.fused_inference`: there, a convolution, its normalisation and PReLU are one operator.

The fused operators use the layout (B, C, H, W), but oneDNN's dense convolutions use a layout
blocked by channels.  Between dense convolutions the layout conversions cost more time than the
fusion saves, so networks of dense convolutions pass ``fused=False``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mxnet import autograd, gluon, sym

from ops import choice

if TYPE_CHECKING:
    from mxnet.gluon import nn


def prelu(F: Any, x: Any, alpha: Any, *, parameter: gluon.Parameter, fused: bool = True) -> Any:
    """Apply PReLU with one slope per channel: max(x, 0) + alpha * min(x, 0).

    There are three implementations:

    - Fused operators: ``face_prelu``.
    - GPU: MXNet's ``LeakyReLU(act_type="prelu")``, one kernel forward and one backward.  Its
      backward pass is slow only for a slope shared by all channels, as in Gluon's ``PReLU``
      (apache/mxnet, issue 10972).
    - CPU: ``alpha * x + (1 - alpha) * relu(x)``, where depthwise 1x1 convolutions compute the two
      products.  oneDNN vectorises the convolutions, their weight gradients, the ReLU and the sum,
      and keeps its blocked layout from the convolution before PReLU to the convolution after PReLU.
      ``LeakyReLU`` on a CPU is not vectorised and needs the plain layout (B, C, H, W).

    The CPU implementation is unsuitable for a GPU.  MXNet 1.9.1 passes every convolution to cuDNN
    (src/operator/nn/convolution.cu).  The two convolutions and their four gradients are six cuDNN
    calls with one group per channel, and cause four times the memory traffic of ``LeakyReLU``.  On
    Ampere and later GPUs, cuDNN also rounds the products to TF32, which adds a relative error of up
    to 4.9e-4 to a function that is otherwise exact.

    Parameters
    ----------
    alpha
        Slope of each of the C channels, (C,).
    parameter
        Gluon parameter that holds the slopes.
    fused
        Whether a fused operator may be used.
    """
    if fused and choice.infers():
        return F.face_prelu(x, alpha)
    if fused and _training():
        choice.refuse_add("PReLU", parameter)
        return F.face_prelu(x, alpha)
    if choice.for_gpu():
        return F.LeakyReLU(x, gamma=alpha, act_type="prelu")
    linear = _scale_channels(F, x, alpha, parameter.shape[0])
    # Do not write ``1 - alpha``, which is the operator _rminus_scalar.  MXNet's ONNX exporter folds
    # that operator to the wrong constant ``alpha - 1``.
    rest = alpha * -1.0 + 1.0
    rectified = _scale_channels(F, F.Activation(x, act_type="relu"), rest, parameter.shape[0])
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
    """Apply batch normalisation, with a fused operator or with ``plain``.

    Parameters
    ----------
    values
        Values of gamma, beta, running mean and running variance of ``norm``, (C,) each.
    norm
        Block that holds these four parameters.
    plain
        Function ``plain(F, x, *values)`` that computes the layer with plain operators.
    fused
        Whether a fused operator may be used.
    """
    if fused and choice.infers():
        return F.face_frozen_norm(x, *values, prelu=False, epsilon=norm._kwargs["eps"])
    if not (fused and _training()) or _is_frozen(norm):
        return plain(F, x, *values)
    choice.refuse_add("BatchNorm", norm.gamma, norm.beta)
    return F.face_batch_norm(x, *values, prelu=False, **_statistics(norm))[0]


def conv_norm(F: Any, x: Any, conv: nn.Conv2D, norm: nn.BatchNorm, *, fused: bool = True) -> Any:
    """Apply a convolution without bias, then batch normalisation."""
    if fused and choice.infers():
        return _infer(F, x, conv, norm)
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
    """Apply a convolution without bias, batch normalisation and PReLU with slopes ``act.alpha``."""
    if fused and choice.infers():
        return _infer(F, x, conv, norm, act)
    if not (fused and _training()) or _is_frozen(norm):
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


def _infer(
    F: Any, x: Any, conv: nn.Conv2D, norm: nn.BatchNorm, act: gluon.HybridBlock | None = None
) -> Any:
    """Apply a convolution, normalisation with running statistics, and PReLU if ``act`` is given."""
    values = [norm.gamma, norm.beta, norm.running_mean, norm.running_var]
    values += [] if act is None else [act.alpha]
    arrays = [_values(F, x, parameter) for parameter in values]
    options = {"prelu": act is not None, "epsilon": norm._kwargs["eps"]}
    if _is_pointwise(conv):
        return F.face_frozen_pointwise(x, _values(F, x, conv.weight), *arrays, **options)
    if _is_depthwise(conv):
        (stride, _) = conv._kwargs["stride"]
        weight = _values(F, x, conv.weight)
        return F.face_frozen_depthwise(x, weight, *arrays, stride=stride, **options)
    return F.face_frozen_norm(conv(x), *arrays, **options)


def _training() -> bool:
    """Return whether the current call is for training and this process uses fused operators."""
    return autograd.is_training() and choice.fused()


def _is_frozen(norm: nn.BatchNorm) -> bool:
    """Return whether training uses the running statistics; no fused operator trains with them."""
    return bool(norm._kwargs["use_global_stats"])


def _convolve(F: Any, x: Any, conv: nn.Conv2D, fused: bool) -> Any:
    # ``fused_scores`` is True only on a CPU, and the fused convolutions exist only for a CPU.
    if fused and _training() and choice.fused_scores() and _is_pointwise(conv):
        choice.refuse_add("convolution", conv.weight)
        return F.face_pointwise(x, _values(F, x, conv.weight))
    return conv(x)


def _is_pointwise(conv: nn.Conv2D) -> bool:
    shape = conv._kwargs
    plain = (shape["kernel"], shape["stride"], shape["pad"]) == ((1, 1), (1, 1), (0, 0))
    return plain and shape["num_group"] == 1 and shape["no_bias"]


def _is_depthwise(conv: nn.Conv2D) -> bool:
    shape = conv._kwargs
    channels, filters, *_ = conv.weight.shape
    single = filters == 1 and shape["num_group"] == channels
    usual = (shape["kernel"], shape["pad"], shape["dilate"]) == ((3, 3), (1, 1), (1, 1))
    return single and usual and len(set(shape["stride"])) == 1 and shape["no_bias"]


def _scale_channels(F: Any, x: Any, factor: Any, channels: int) -> Any:
    weight = F.reshape(factor, shape=(-1, 1, 1, 1))
    return F.Convolution(
        x, weight, kernel=(1, 1), num_filter=channels, num_group=channels, no_bias=True
    )


def _statistics(norm: nn.BatchNorm) -> dict[str, float]:
    return {"epsilon": norm._kwargs["eps"], "momentum": norm._kwargs["momentum"]}


def _values(F: Any, x: Any, parameter: gluon.Parameter) -> Any:
    """Return a parameter as an operand: a symbol while Gluon traces a block, else an array."""
    return parameter.var() if F is sym else parameter.data(x.context)
