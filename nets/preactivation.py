# SPDX-License-Identifier: Apache-2.0
"""Residual bottleneck units with the activation before each convolution.

Shapes: B is the number of images in the batch, H and W are the height and the width of a feature
map.
"""

from typing import Any

from mxnet import gluon

from nets.blocks import BatchNorm, ConvNorm, PReLU, convolution
from nets.squeeze_excitation import SqueezeExcitation

FUSED = False
"""Whether training uses the fused operators; `ops.layers` explains why false is faster here."""
BOTTLENECK = 4
"""Quotient of the output channels of a unit and the channels of its 3x3 convolution."""


class PreActivationUnit(gluon.HybridBlock):
    """Residual unit of a 1x1, a 3x3 and a 1x1 convolution, each after an activation.

    Batch normalisation precedes each activation.  The first activation also feeds the shortcut if
    the shortcut is a convolution.

    Parameters
    ----------
    in_channels
        Number of input channels.
    channels
        Number of output channels, a multiple of ``BOTTLENECK``.
    stride
        Stride of the 3x3 convolution and of the shortcut.
    project
        Whether the shortcut is a 1x1 convolution; if not, the shortcut is the identity.
    activation
        Block class of the activations; the arguments of the constructor are the number of channels
        and whether training uses the fused operators.
    se
        Whether squeeze-and-excitation follows the last convolution.

    Inputs
    ------
    x : (B, in_channels, H, W) float32

    Outputs
    -------
    (B, channels, ceil(H / stride), ceil(W / stride)) float32

    Notes
    -----
    He et al., "Identity Mappings in Deep Residual Networks", arXiv:1603.05027, figure 4 (e).
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        *,
        project: bool = False,
        activation: type[gluon.HybridBlock] = PReLU,
        se: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        hidden = channels // BOTTLENECK
        with self.name_scope():
            self.norm = BatchNorm(in_channels, FUSED)
            self.act = activation(in_channels, FUSED)
            self.first = ConvNorm(in_channels, hidden, fused=FUSED)
            self.first_act = activation(hidden, FUSED)
            self.second = ConvNorm(hidden, hidden, 3, stride, 1, fused=FUSED)
            self.second_act = activation(hidden, FUSED)
            self.last = convolution(hidden, channels)
            # Create the blocks in GluonFR's order, which is also the order of parameters in its
            # files.
            self.shortcut = convolution(in_channels, channels, stride=stride) if project else None
            self.se = SqueezeExcitation(channels) if se else None

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        activated = self.act(self.norm(x))
        y = self.first_act(self.first(activated))
        y = self.last(self.second_act(self.second(y)))
        if self.se is not None:
            y = self.se(y)
        return F.elemwise_add(y, x if self.shortcut is None else self.shortcut(activated))
