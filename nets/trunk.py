# SPDX-License-Identifier: Apache-2.0
"""Face networks: the feature extractor of a classification network, then an embedding output.

The extractors ("trunks") come from the package gluoncv2, which a builder imports when it is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import mxnet as mx
from mxnet import gluon, init
from mxnet.gluon import nn

from nets.blocks import BN_EPSILON, BN_MOMENTUM
from nets.embedding import build_output
from ops.mode_graphs import ModeGraphs

if TYPE_CHECKING:
    from collections.abc import Sequence

TYPICAL_EMBEDDING_SIZE = 512


class Head(NamedTuple):
    """Settings of the last layers of a network; `nets.embedding.build_output` explains them."""

    name: str
    """Name of the network, for error messages."""
    embedding_size: int
    output: str
    dropout: float


class TrunkNet(ModeGraphs):
    """Network of a trunk and an embedding output.

    The first convolution gets stride 1 instead of 2, so that a face of 112x112 pixels gives feature
    maps of the size that the trunk computes from an image of 224x224 pixels. The last pooling layer
    is removed.

    Parameters
    ----------
    make_trunk
        Function that returns the sequence of the trunk's layers.
    image_size
        (height, width) of the images in pixels, which determines the size of the last layers.
    head
        Settings of the last layers.
    epsilon
        Number that the trunk's batch normalisations add to the variance.

    Inputs
    ------
    x : (B, 3, *image_size) float32
        B images with values of about -1 to 1.

    Outputs
    -------
    (B, E) float32
        Embeddings, not normalised to L2 norm 1.

    Notes
    -----
    The convolutions start with the normal distribution of He et al., arXiv:1502.01852, whose
    variance is 2 / fan-out. `initialize()` allocates all parameters immediately.
    """

    def __init__(
        self,
        make_trunk: Callable[[], nn.HybridSequential],
        image_size: tuple[int, int],
        head: Head,
        *,
        epsilon: float = BN_EPSILON,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.trunk = make_trunk()
            _adapt(self.trunk, epsilon)
            channels, height, width = _feature_shape(self.trunk, image_size)
            self.embedding = build_output(
                head.output,
                channels,
                head.embedding_size,
                (height, width),
                name=head.name,
                dropout=head.dropout,
            )

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.embedding(self.trunk(x))


def scale_channels(channels: int, width: float, divisor: int = 8) -> int:
    """Multiply a number of channels by ``width``; round the product to a multiple of ``divisor``.

    The result is at least ``divisor``, and at least 0.9 times the product.

    Notes
    -----
    Sandler et al., "MobileNetV2", arXiv:1801.04381: the published code rounds in this way.
    """
    rounded = max(divisor, int(channels * width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels * width else rounded


def scale_stages(
    stages: Sequence[Sequence[int]], width: float, divisor: int = 8
) -> list[list[int]]:
    """Apply `scale_channels` to the number of channels of each unit of each stage."""
    return [[scale_channels(channels, width, divisor) for channels in stage] for stage in stages]


def blocks_of(block: gluon.Block) -> Iterator[gluon.Block]:
    """Yield a block and all blocks inside it; each block precedes its own children."""
    yield block
    for child in block._children.values():
        yield from blocks_of(child)


def _adapt(trunk: nn.HybridSequential, epsilon: float) -> None:
    """Set the first stride, initial weights and batch normalisations; remove the last pooling."""
    last, layer = list(trunk._children.items())[-1]
    if type(layer) in (nn.AvgPool2D, nn.GlobalAvgPool2D):
        del trunk._children[last]
    convolutions = [block for block in blocks_of(trunk) if isinstance(block, nn.Conv2D)]
    convolutions[0]._kwargs["stride"] = (1, 1)
    for conv in convolutions:
        # mx.init.Xavier would count the channels of all groups as the fan-out of one input value.
        filters, _, *kernel = conv.weight.shape
        fan_out = filters * math.prod(kernel) / conv._kwargs["num_group"]
        conv.weight.init = init.Normal(math.sqrt(2.0 / fan_out))
    for block in blocks_of(trunk):
        if isinstance(block, nn.BatchNorm):
            block._kwargs.update(eps=epsilon, momentum=BN_MOMENTUM)


def _feature_shape(trunk: gluon.HybridBlock, image_size: tuple[int, int]) -> tuple[int, int, int]:
    """Return (channels, height, width) of the last feature map."""
    _, ((_, *shape),), _ = trunk(mx.sym.var("data")).infer_shape(data=(1, 3, *image_size))
    channels, height, width = shape
    return channels, height, width
