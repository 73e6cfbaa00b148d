# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the small networks: convolution, batch normalisation, PReLU, bottleneck."""

import math

from mxnet import gluon, init
from mxnet.gluon import nn

# Gluon's and PyTorch's default (the older MXNet face networks differ: 2e-5, 1e-3), so weights
# move between the two unchanged. It is also the least that cuDNN 8's batch normalisation takes.
BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9


class PReLU(gluon.HybridBlock):
    """Rectifier with one learned slope per channel: y = max(x, 0) + alpha * min(x, 0).

    Written as ``alpha * x + (1 - alpha) * relu(x)``, where both products are depthwise 1x1
    convolutions. oneDNN vectorises those, their weight gradients, the rectifier and the sum, and
    keeps its blocked memory layout from the convolution before to the one after. The built-in
    ``LeakyReLU(act_type="prelu")`` is neither vectorised nor blocked on CPU.

    Parameters
    ----------
    channels
        Number of channels C of the input.

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

    def __init__(self, channels: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self._channels = channels
        with self.name_scope():
            self.alpha = self.params.get("alpha", shape=(channels,), init=init.Constant(0.25))

    def hybrid_forward(self, F, x, alpha):
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


class ConvNorm(gluon.HybridBlock):
    """Convolution without bias, then batch normalisation (linear: no activation).

    Parameters
    ----------
    in_channels, channels
        Channels in and out.
    kernel, stride, padding
        In pixels.
    groups
        Number of convolution groups; ``groups=in_channels=channels`` is depthwise.

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
        kernel: int = 1,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        # He initialisation over the fan-out that one input value really has. mx.init.Xavier would
        # count all channels of a depthwise filter and make it smaller by sqrt(channels).
        fan_out = kernel * kernel * channels // groups
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
            self.norm = nn.BatchNorm(momentum=BN_MOMENTUM, epsilon=BN_EPSILON, in_channels=channels)

    def hybrid_forward(self, F, x):
        return self.norm(self.conv(x))


class ConvNormPReLU(ConvNorm):
    """`ConvNorm` followed by `PReLU`; same parameters, inputs and outputs."""

    def __init__(self, in_channels: int, channels: int, *args, **kwargs) -> None:
        super().__init__(in_channels, channels, *args, **kwargs)
        with self.name_scope():
            self.act = PReLU(channels)

    def hybrid_forward(self, F, x):
        return self.act(super().hybrid_forward(F, x))


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
