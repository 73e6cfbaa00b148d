# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the networks: convolution, batch normalisation, PReLU and ReLU.

The blocks hold the parameters. `ops.layers` chooses the plain or fused operators that compute the
outputs.

Shapes: B is the number of images in the batch, C the number of channels, H and W are the height and
the width of a feature map, H' and W' those of the output.
"""

import math
from typing import Any

from mxnet import gluon, init
from mxnet.gluon import nn

from ops import layers

# Number added to the variance in batch normalisation. 1e-5 is the default of Gluon and PyTorch, so
# weights can be exchanged with networks of these libraries. It is also the minimum that cuDNN 8
# accepts. Older MXNet face networks use 2e-5 or 1e-3.
BN_EPSILON = 1e-5
# Weight of the old value in the running mean and variance of batch normalisation.
BN_MOMENTUM = 0.9
STATISTICS = {"epsilon": BN_EPSILON, "momentum": BN_MOMENTUM}


class PReLU(gluon.HybridBlock):
    """Rectifier with a learned slope alpha for the negative inputs of each channel.

    y = max(x, 0) + alpha * min(x, 0).

    Parameters
    ----------
    channels
        Number of channels C of the input.
    fused
        Whether to use the fused operators if they are available; `ops.layers` says when they are.

    Inputs
    ------
    x : (B, C, H, W) float32

    Outputs
    -------
    (B, C, H, W) float32

    Notes
    -----
    He et al., "Delving Deep into Rectifiers", arXiv:1502.01852, equation 1. The initial slope
    alpha is 0.25.
    """

    def __init__(self, channels: int, fused: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._fused = fused
        with self.name_scope():
            self.alpha = self.params.get("alpha", shape=(channels,), init=init.Constant(0.25))

    def hybrid_forward(self, F: Any, x: Any, alpha: Any) -> Any:
        return layers.prelu(F, x, alpha, parameter=self.alpha, fused=self._fused)


class BatchNorm(nn.BatchNorm):
    """Batch normalisation of each channel, with a fused operator in training.

    Parameters
    ----------
    channels
        Number of channels C of the input.
    fused
        Whether to use the fused operators if they are available (see `PReLU`).

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
    """Convolution without bias, then batch normalisation, without an activation.

    Parameters
    ----------
    in_channels
        Number of input channels.
    channels
        Number of output channels.
    kernel
        Size of the kernel in pixels: one number for a square kernel, or (height, width).
    stride
        Stride of the convolution in pixels.
    padding
        Padding on each side of the input in pixels.
    groups
        Number of convolution groups. The convolution is depthwise if ``groups``, ``in_channels``
        and ``channels`` are equal.
    fused
        Whether to use the fused operators if they are available (see `PReLU`).

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
        # He initialisation. The fan-out is the number of output values that one input value
        # reaches. mx.init.Xavier counts all channels of a depthwise convolution, so its weights
        # would be too small by a factor of sqrt(channels).
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
    """`ConvNorm` followed by `PReLU`; parameters, inputs and outputs are those of `ConvNorm`."""

    def __init__(self, in_channels: int, channels: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(in_channels, channels, *args, **kwargs)
        with self.name_scope():
            self.act = PReLU(channels, self._fused)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return layers.conv_norm_prelu(F, x, self.conv, self.norm, self.act, fused=self._fused)


class ReLU(gluon.HybridBlock):
    """Rectifier max(x, 0); the constructor has the same arguments as that of `PReLU`."""

    def __init__(self, channels: int, fused: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.Activation(x, act_type="relu")


def convolution(in_channels: int, channels: int, kernel: int = 1, *, stride: int = 1) -> nn.Conv2D:
    """Create a convolution without bias, padded so that output sides are ceil(side / stride).

    He et al., arXiv:1502.01852, equation 14, gives the variance of the initial weights.
    """
    weights = init.Normal(math.sqrt(2.0 / (kernel**2 * channels)))
    return nn.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding=kernel // 2,
        use_bias=False,
        in_channels=in_channels,
        weight_initializer=weights,
    )


def fixed_norm(channels: int, *, shift: bool = True) -> nn.BatchNorm:
    """Create a batch normalisation with a fixed scale (gamma) of 1.

    Parameters
    ----------
    channels
        Number of channels of the input.
    shift
        Whether training changes the offset (beta); if not, beta stays 0.
    """
    norm = nn.BatchNorm(in_channels=channels, **STATISTICS)
    # A frozen gamma of 1 computes the same function as BatchNorm(scale=False), whose gradient of
    # beta is reported to be wrong on some GPUs.
    norm.gamma.grad_req = "null"
    if not shift:
        norm.beta.grad_req = "null"
    return norm
