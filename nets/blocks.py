# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the networks: convolution, batch normalisation, PReLU, bottleneck.

The blocks hold the parameters; `ops.layers` chooses the operators that compute with them.
"""

import math
from typing import Any

from mxnet import gluon, init
from mxnet.gluon import nn

from ops import layers

# Default of Gluon and PyTorch, so that weights are interchangeable. Older MXNet face networks use
# 2e-5 or 1e-3. It is also the minimum that cuDNN 8's batch normalisation accepts.
BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9
STATISTICS = {"epsilon": BN_EPSILON, "momentum": BN_MOMENTUM}


class PReLU(gluon.HybridBlock):
    """Rectifier with one learned slope per channel: y = max(x, 0) + alpha * min(x, 0).

    Parameters
    ----------
    channels
        Number of channels C of the input.
    fused
        Whether training uses the fused operators if available; `ops.layers` lists the exceptions.

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

    def __init__(self, channels: int, fused: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._fused = fused
        with self.name_scope():
            self.alpha = self.params.get("alpha", shape=(channels,), init=init.Constant(0.25))

    def hybrid_forward(self, F: Any, x: Any, alpha: Any) -> Any:
        return layers.prelu(F, x, alpha, parameter=self.alpha, fused=self._fused)


class BatchNorm(nn.BatchNorm):
    """Batch normalisation over channels, with a fused operator in training.

    Parameters
    ----------
    channels
        Number of channels C of the input.
    fused
        See `PReLU`.

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

    def __init__(self, channels: int, fused: bool = True, **kwargs: Any) -> None:
        super().__init__(in_channels=channels, **STATISTICS, **kwargs)
        self._fused = fused

    def hybrid_forward(
        self, F: Any, x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any
    ) -> Any:
        values = (gamma, beta, running_mean, running_var)
        plain = super().hybrid_forward
        return layers.batch_norm(F, x, values, norm=self, plain=plain, fused=self._fused)


class ConvNorm(gluon.HybridBlock):
    """Convolution without bias, then batch normalisation (linear: no activation).

    Parameters
    ----------
    in_channels, channels
        Number of input and output channels.
    kernel, stride, padding
        Kernel size, stride and padding in pixels; the kernel may be (height, width).
    groups
        Number of convolution groups; ``groups=in_channels=channels`` is depthwise.
    fused
        See `PReLU`.

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
        *,
        groups: int = 1,
        fused: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # He initialisation with the fan-out of one input value. mx.init.Xavier counts all channels
        # of a depthwise filter, which makes the weights smaller by a factor of sqrt(channels).
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

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return layers.conv_norm(F, x, self.conv, self.norm, fused=self._fused)


class ConvNormPReLU(ConvNorm):
    """`ConvNorm` followed by `PReLU`, with the same parameters, inputs and outputs."""

    def __init__(self, in_channels: int, channels: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(in_channels, channels, *args, **kwargs)
        with self.name_scope():
            self.act = PReLU(channels, self._fused)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return layers.conv_norm_prelu(F, x, self.conv, self.norm, self.act, fused=self._fused)


class LinearBottleneck(gluon.HybridBlock):
    """Expand with 1x1, filter with a depthwise 3x3, project linearly with 1x1.

    Parameters
    ----------
    in_channels, channels
        Number of input and output channels.
    expanded
        Number of channels of the depthwise convolution.
    stride
        Stride of the depthwise convolution. With stride 1 and equal numbers of channels, the block
        adds its input to the output.

    Inputs
    ------
    x : (B, in_channels, H, W) float32

    Outputs
    -------
    (B, channels, ceil(H / stride), ceil(W / stride)) float32

    Notes
    -----
    Sandler et al., "MobileNetV2", arXiv:1801.04381, section 3.3, with PReLU instead of ReLU6.
    """

    def __init__(
        self, in_channels: int, channels: int, expanded: int, stride: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._residual = stride == 1 and in_channels == channels
        with self.name_scope():
            self.expand = ConvNormPReLU(in_channels, expanded)
            self.depthwise = ConvNormPReLU(expanded, expanded, 3, stride, 1, groups=expanded)
            self.project = ConvNorm(expanded, channels)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = self.project(self.depthwise(self.expand(x)))
        return F.elemwise_add(x, y) if self._residual else y
