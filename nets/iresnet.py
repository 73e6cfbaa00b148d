# SPDX-License-Identifier: Apache-2.0
"""IResNet: the residual networks of the ArcFace paper, with 24 to 65 million parameters.

Shapes: B is the number of images in the batch, E the number of dimensions of an embedding, H and W
are the height and the width of a feature map.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from mxnet import gluon
from mxnet.gluon import nn

import ops
from nets.blocks import BatchNorm, ConvNorm, ConvNormPReLU
from nets.embedding import MAX_EMBEDDING_SIZE
from nets.embedding_layers import DenseEmbedding
from nets.image_size import check_features, check_image_size, feature_size
from ranges import Within

STEM_CHANNELS = 64
STAGE_CHANNELS = (64, 128, 256, 512)
UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
}
"""Mapping from the number of layers to the number of residual units in each of the four stages."""
FUSED = False
"""Whether training uses the fused operators.

IResNet has no depthwise convolutions, and oneDNN computes the dense ones; `ops.layers` gives the
reason."""
EmbeddingSize = Annotated[
    int, Within(1, MAX_EMBEDDING_SIZE, "the embedding size in the paper is 512")
]
Dropout = Annotated[
    float,
    Within(0, 1, "dropout 0 disables dropout; the paper uses 0.4", open_high=True),
]


class IRUnit(gluon.HybridBlock):
    """Residual unit with two 3x3 convolutions and without an activation after the sum.

    The order is: batch normalisation, 3x3 convolution, batch normalisation, PReLU, 3x3 convolution,
    batch normalisation, addition of the shortcut.

    Parameters
    ----------
    in_channels
        Number of input channels.
    channels
        Number of output channels.
    stride
        Stride of the second 3x3 convolution and of the shortcut.
    project
        Whether the shortcut is a 1x1 convolution with batch normalisation; if not, the shortcut is
        the identity.

    Inputs
    ------
    x : (B, in_channels, H, W) float32

    Outputs
    -------
    (B, channels, ceil(H / stride), ceil(W / stride)) float32

    Notes
    -----
    The improved residual unit ("IR" in LResNet-E-IR) of Deng et al., "ArcFace", arXiv:1801.07698,
    network settings of version 1. Two features come from Han et al., "Deep Pyramidal Residual
    Networks", arXiv:1610.02915: batch normalisation before the first and after the last
    convolution, and no activation after the sum.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        project: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.norm = BatchNorm(in_channels, FUSED)
            self.first = ConvNormPReLU(in_channels, channels, 3, 1, 1, fused=FUSED)
            self.second = ConvNorm(channels, channels, 3, stride, 1, fused=FUSED)
            self.shortcut = (
                ConvNorm(in_channels, channels, 1, stride, fused=FUSED) if project else None
            )

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = self.second(self.first(self.norm(x)))
        return F.elemwise_add(y, self.shortcut(x) if self.shortcut is not None else x)


class IResNet(ops.TwoGraphs):
    """IResNet: a stem, four stages that each halve the resolution, and an embedding layer.

    Parameters
    ----------
    units
        Number of residual units in each stage.
    embedding_size
        Number of dimensions E of the embedding.
    dropout
        Fraction of the values of the last feature map that training sets to 0.
    channels
        Number of channels of each stage. The stem has as many channels as the first stage. Only the
        small networks of the tests use other numbers than the paper.
    image_size
        (height, width) of the images in pixels, which determines the size of the last layer.

    Inputs
    ------
    x : (B, 3, *image_size) float32
        Images with values of about -1 to 1.

    Outputs
    -------
    (B, E) float32
        Embeddings, not normalised to L2 norm 1.

    Notes
    -----
    LResNet-E-IR of Deng et al., "ArcFace", arXiv:1801.07698, network settings of version 1. "L"
    stands for a first convolution of 3x3 with stride 1 and without pooling, so that images of
    112x112 pixels give feature maps of 7x7. "E" stands for the last layers
    (`nets.embedding_layers.DenseEmbedding`). Residual learning comes from He et al., arXiv:1512.03385, the
    initial variance of the convolutions from He et al., arXiv:1502.01852. `initialize()` allocates
    all parameters immediately, because no shape depends on the first batch.
    """

    def __init__(
        self,
        units: Sequence[int],
        embedding_size: int = 512,
        *,
        dropout: float = 0.0,
        channels: Sequence[int] = STAGE_CHANNELS,
        image_size: tuple[int, int] = (112, 112),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        before = channels[0]
        with self.name_scope():
            self.stem = ConvNormPReLU(3, before, 3, 1, 1, fused=FUSED)
            self.stages = nn.HybridSequential()
            for repeats, after in zip(units, channels, strict=True):
                stage = nn.HybridSequential()
                stage.add(IRUnit(before, after, 2, project=True))
                for _ in range(repeats - 1):
                    stage.add(IRUnit(after, after))
                self.stages.add(stage)
                before = after
            remaining = feature_size(image_size, len(channels))
            self.embedding = DenseEmbedding(before, embedding_size, remaining, dropout)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.embedding(self.stages(self.stem(x)))


def iresnet(depth: int) -> Callable[..., IResNet]:
    """Return a function that builds an `IResNet` with a given number of layers.

    Parameters
    ----------
    depth
        Number of layers as in the name of the network, for example 50 for iresnet50: a key of
        ``UNITS``.
    """
    name = f"iresnet{depth}"

    def build(
        image_size: tuple[int, int] = (112, 112),
        *,
        embedding_size: EmbeddingSize = 512,
        dropout: Dropout = 0.0,
    ) -> IResNet:
        size = check_image_size(name, image_size)
        remaining = feature_size(size, len(STAGE_CHANNELS))
        check_features(name, remaining, STAGE_CHANNELS[-1] * math.prod(remaining), embedding_size)
        return IResNet(UNITS[depth], embedding_size, dropout=dropout, image_size=size)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""IResNet of {depth} layers, the residual network of the ArcFace paper.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels.
    embedding_size
        Number of dimensions of the embedding.
    dropout
        Fraction of the values of the last feature map that training sets to 0. The MXNet networks
        of the paper use 0.4, InsightFace's later training script uses 0.

    Raises
    ------
    ValueError
        If the images are too small, or if the last layer is too large for MXNet.

    Notes
    -----
    LResNet{depth}E-IR of Deng et al., "ArcFace", arXiv:1801.07698, network settings of version 1.
    """
    return build
