# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the small networks: convolution, batch normalisation, PReLU, bottleneck."""

import math

import mxnet as mx
from mxnet import gluon, init
from mxnet.gluon import nn

import ops

# Gluon's and PyTorch's default (the older MXNet face networks differ: 2e-5, 1e-3), so weights
# move between the two unchanged. It is also the least that cuDNN 8's batch normalisation takes.
BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9
STATISTICS = {"epsilon": BN_EPSILON, "momentum": BN_MOMENTUM}


class PReLU(gluon.HybridBlock):
    """Rectifier with one learned slope per channel: y = max(x, 0) + alpha * min(x, 0).

    Three forms of one function of the same parameter; `ops` chooses.

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
    channels
        Number of channels C of the input.
    fused
        See `ConvNorm`.

    Inputs
    ------
    x : (B, C, H, W) float32

    Outputs
    -------
    (B, C, H, W) float32

    Notes
    -----
    He et al., "Delving Deep into Rectifiers", arXiv:1502.01852, equation 1; slopes start at 0.25.
    """

    def __init__(self, channels: int, fused: bool = True, **kwargs) -> None:
        super().__init__(**kwargs)
        self._channels = channels
        self._fused = fused
        with self.name_scope():
            self.alpha = self.params.get("alpha", shape=(channels,), init=init.Constant(0.25))

    def hybrid_forward(self, F, x, alpha):
        if self._fused and ops.fused_training():
            ops.refuse_add("PReLU", self.alpha)
            return F.face_prelu(x, alpha)
        if ops.for_gpu():
            return F.LeakyReLU(x, gamma=alpha, act_type="prelu")
        linear = self._scale_channels(F, x, alpha)
        rectified = self._scale_channels(F, F.Activation(x, act_type="relu"), 1 - alpha)
        return F.elemwise_add(linear, rectified)

    def _scale_channels(self, F, x, factor):
        weight = F.reshape(factor, shape=(-1, 1, 1, 1))
        return F.Convolution(
            x,
            weight,
            kernel=(1, 1),
            num_filter=self._channels,
            num_group=self._channels,
            no_bias=True,
        )


class BatchNorm(nn.BatchNorm):
    """`mxnet.gluon.nn.BatchNorm` over channels, in training with a fused operator.

    Parameters
    ----------
    channels
        Number of channels C of the input.
    fused
        See `ConvNorm`.

    Inputs
    ------
    x : (B, C, H, W) float32

    Outputs
    -------
    (B, C, H, W) float32

    Notes
    -----
    Ioffe and Szegedy, "Batch Normalization", arXiv:1502.03167, algorithms 1 and 2.
    """

    def __init__(self, channels: int, fused: bool = True, **kwargs) -> None:
        super().__init__(momentum=BN_MOMENTUM, epsilon=BN_EPSILON, in_channels=channels, **kwargs)
        self._fused = fused

    def hybrid_forward(self, F, x, gamma, beta, running_mean, running_var):
        if not (self._fused and ops.fused_training()):
            return super().hybrid_forward(F, x, gamma, beta, running_mean, running_var)
        ops.refuse_add("BatchNorm", self.gamma, self.beta)
        return F.face_batch_norm(
            x, gamma, beta, running_mean, running_var, prelu=False, **STATISTICS
        )[0]


class ConvNorm(gluon.HybridBlock):
    """Convolution without bias, then batch normalisation (linear: no activation).

    Parameters
    ----------
    in_channels, channels
        Channels in and out.
    kernel, stride, padding
        In pixels; the kernel may be (height, width).
    groups
        Number of convolution groups; ``groups=in_channels=channels`` is depthwise.
    fused
        Whether training takes the fused operators where they can be had. They get and give arrays
        in the plain order of (B, C, H, W); between dense convolutions, which oneDNN computes in
        blocks of channels, the copies from one order to the other cost more than is won.

    Inputs
    ------
    x : (B, in_channels, H, W) float32

    Outputs
    -------
    (B, channels, H', W') float32
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        fused: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        # He initialisation over the fan-out that one input value really has. mx.init.Xavier would
        # count all channels of a depthwise filter and make it smaller by sqrt(channels).
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        fan_out = height * width * channels // groups
        with self.name_scope():
            self.conv = nn.Conv2D(
                channels,
                kernel,
                strides=stride,
                padding=padding,
                groups=groups,
                use_bias=False,
                in_channels=in_channels,
                weight_initializer=init.Normal(math.sqrt(2.0 / fan_out)),
            )
            self.norm = BatchNorm(channels, fused)
        self._fused = fused
        self._stride = stride
        shape = (kernel, stride, padding)
        self._pointwise = shape == (1, 1, 0) and groups == 1
        self._depthwise = kernel == 3 and padding == 1 and groups == in_channels == channels

    def hybrid_forward(self, F, x):
        return self.norm(self._convolve(F, x))

    def _convolve(self, F, x):
        if self._pointwise and self._fused and ops.fused_convolutions():
            ops.refuse_add("convolution", self.conv.weight)
            return F.face_pointwise(x, _values(F, x, self.conv.weight))
        return self.conv(x)


class ConvNormPReLU(ConvNorm):
    """`ConvNorm` followed by `PReLU`; same parameters, inputs and outputs."""

    def __init__(self, in_channels: int, channels: int, *args, **kwargs) -> None:
        super().__init__(in_channels, channels, *args, **kwargs)
        with self.name_scope():
            self.act = PReLU(channels, self._fused)

    def hybrid_forward(self, F, x):
        if not (self._fused and ops.fused_training()):
            return self.act(super().hybrid_forward(F, x))
        norm, slope = self.norm, self.act.alpha
        ops.refuse_add("convolution and PReLU", self.conv.weight, norm.gamma, norm.beta, slope)
        values = [norm.gamma, norm.beta, norm.running_mean, norm.running_var, slope]
        if self._depthwise and ops.fused_convolutions():
            values = [_values(F, x, p) for p in (self.conv.weight, *values)]
            return F.face_depthwise_norm(x, *values, stride=self._stride, **STATISTICS)[0]
        y = self._convolve(F, x)
        values = [_values(F, x, p) for p in values]
        return F.face_batch_norm(y, *values, prelu=True, **STATISTICS)[0]


class LinearBottleneck(gluon.HybridBlock):
    """Expand with 1x1, filter with a depthwise 3x3, project linearly with 1x1.

    Parameters
    ----------
    in_channels, channels
        Channels in and out.
    expanded
        Channels of the depthwise convolution in the middle.
    stride
        Of the depthwise convolution. With stride 1 and as many channels out as in, the input is
        added to the output.

    Inputs
    ------
    x : (B, in_channels, H, W) float32

    Outputs
    -------
    (B, channels, ceil(H / stride), ceil(W / stride)) float32

    Notes
    -----
    Sandler et al., "MobileNetV2", arXiv:1801.04381, section 3.3, with PReLU for ReLU6.
    """

    def __init__(
        self, in_channels: int, channels: int, expanded: int, stride: int = 1, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self._residual = stride == 1 and in_channels == channels
        with self.name_scope():
            self.expand = ConvNormPReLU(in_channels, expanded)
            self.depthwise = ConvNormPReLU(expanded, expanded, 3, stride, 1, groups=expanded)
            self.project = ConvNorm(expanded, channels)

    def hybrid_forward(self, F, x):
        y = self.project(self.depthwise(self.expand(x)))
        return F.elemwise_add(x, y) if self._residual else y


def _values(F, x, parameter: gluon.Parameter):
    """Return the values of a child block's parameter, as ``hybrid_forward`` gets its own."""
    return parameter.var() if F is mx.sym else parameter.data(x.context)
