# SPDX-License-Identifier: Apache-2.0
"""Bottleneck block with a depthwise convolution between two 1x1 convolutions.

Shapes: B is the number of images in the batch, H and W are the height and the width of a feature
map.
"""

from typing import Any

from mxnet import gluon

from nets.blocks import ConvNorm, ConvNormPReLU
from nets.squeeze_excitation import SqueezeExcitation


class LinearBottleneck(gluon.HybridBlock):
    """Bottleneck block: a 1x1, a depthwise and a linear 1x1 convolution.

    The first convolution expands the number of channels, the last one reduces it again.

    Parameters
    ----------
    in_channels
        Number of input channels.
    channels
        Number of output channels.
    expanded
        Number of channels of the depthwise convolution.
    stride
        Stride of the depthwise convolution. With stride 1 and equal numbers of input and output
        channels, the block adds its input to its output.
    kernel
        Height and width of the depthwise convolution in pixels, an odd number.
    se
        Whether `SqueezeExcitation` follows the last convolution.
    residual
        Whether the block adds its input to its output if the shapes allow the sum.

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
        self,
        in_channels: int,
        channels: int,
        expanded: int,
        stride: int = 1,
        *,
        kernel: int = 3,
        se: bool = False,
        residual: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._residual = residual and stride == 1 and in_channels == channels
        with self.name_scope():
            self.expand = ConvNormPReLU(in_channels, expanded)
            self.depthwise = ConvNormPReLU(
                expanded, expanded, kernel, stride, kernel // 2, groups=expanded
            )
            self.project = ConvNorm(expanded, channels)
            self.se = SqueezeExcitation(channels) if se else None

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = self.project(self.depthwise(self.expand(x)))
        if self.se is not None:
            y = self.se(y)
        return F.elemwise_add(x, y) if self._residual else y
