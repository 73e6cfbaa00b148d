# SPDX-License-Identifier: Apache-2.0
"""Trunk of GhostNet from gluoncv2, with a Ghost module that also runs if MXNet uses oneDNN.

This module imports gluoncv2. Only the builder of GhostNet imports this module, when it is called,
so that networks without a trunk of gluoncv2 do not need that package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gluoncv2.models.ghostnet import GhostConvBlock, GhostNet

if TYPE_CHECKING:
    from mxnet.gluon import nn


class GhostModule(GhostConvBlock):
    """Ghost module: a 1x1 convolution, and a depthwise convolution of its outputs.

    Parameters
    ----------
    block
        Module of gluoncv2, whose layers the new module uses.
    size
        (height, width) of the feature maps in pixels.

    Inputs
    ------
    x : (B, C, *size) float32

    Outputs
    -------
    (B, 2 * M, *size) float32
        M channels of the 1x1 convolution, then M channels of the depthwise convolution.

    Notes
    -----
    Han et al., arXiv:1911.11907, section 3.1. oneDNN refuses to concatenate feature maps whose
    number of channels is no multiple of 16. Therefore this module concatenates along a new axis of
    size 1, for which MXNet does not use oneDNN.
    """

    def __init__(self, block: GhostConvBlock, size: tuple[int, int]) -> None:
        super(GhostConvBlock, self).__init__(prefix=block.prefix, params=block.params)
        self.main_conv = block.main_conv
        self.cheap_conv = block.cheap_conv
        self._size = size

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        primary = self.main_conv(x)
        both = [F.expand_dims(part, axis=1) for part in (primary, self.cheap_conv(primary))]
        return F.reshape(F.concat(*both, dim=1), shape=(0, -1, *self._size))


def build_trunk(
    image_size: tuple[int, int],
    *,
    channels: Sequence[Sequence[int]],
    expanded: Sequence[Sequence[int]],
    kernels: Sequence[Sequence[int]],
    squeeze: Sequence[Sequence[int]],
    stem: int,
    last: int,
) -> nn.HybridSequential:
    """Build GhostNet's layers up to the last pooling, for a first convolution with stride 1.

    `nets.trunk.TrunkNet` sets this stride, which determines the sizes of the feature maps.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels.
    channels, expanded
        Numbers of output channels and of expanded channels, one list for each stage with a number
        for each unit.  All numbers are even.
    kernels
        Size of the depthwise kernel of each unit, 3 or 5 pixels, in lists like those of
        ``channels``.
    squeeze
        1 for a unit with squeeze-and-excitation, 0 for any other unit, in lists like those of
        ``channels``.
    stem, last
        Numbers of output channels of the first and of the last convolution.
    """
    before = [stem, *(count for stage in channels for count in stage)]
    inputs = iter(before)
    trunk = GhostNet(
        channels=channels,
        init_block_channels=stem,
        final_block_channels=last,
        classifier_mid_channels=1,  # the classifier is not used
        kernels3=[[int(kernel == 3) for kernel in stage] for stage in kernels],
        # gluoncv2 rounds up the product of a factor and a number of input channels.  Half a
        # channel less ensures that a rounding error does not add a channel.
        exp_factors=[[(count - 0.5) / next(inputs) for count in stage] for stage in expanded],
        use_se=squeeze,
        first_stride=False,
    ).features
    size = image_size
    for number, stage in enumerate(list(trunk)[1 : 1 + len(channels)]):
        for position, unit in enumerate(stage):
            unit.body.exp_conv = GhostModule(unit.body.exp_conv, size)
            if number > 0 and position == 0:
                size = ((size[0] + 1) // 2, (size[1] + 1) // 2)
            unit.body.pw_conv = GhostModule(unit.body.pw_conv, size)
    return trunk
