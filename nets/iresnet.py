# SPDX-License-Identifier: Apache-2.0
"""IResNet: the residual networks of the ArcFace paper, 24 to 65 million parameters."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from mxnet import gluon
from mxnet.gluon import nn

import ops
from nets.blocks import BatchNorm, ConvNorm, ConvNormPReLU
from nets.embedding import DenseEmbedding
from nets.image_size import check_features, check_image_size, feature_size
from ranges import Within, at_least

STEM_CHANNELS = 64
STAGE_CHANNELS = (64, 128, 256, 512)
UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
}
"""Depth -> number of units of each stage."""
FUSED = False
"""All convolutions are dense: oneDNN computes them, for the reason given in `ops.layers`."""
EmbeddingSize = Annotated[int, at_least(1, "the paper uses 512")]
Dropout = Annotated[
    float,
    Within(0, 1, "0.0 disables it, the paper uses 0.4", open_high=True),
]


class IRUnit(gluon.HybridBlock):
    """Residual unit: BN, 3x3, BN, PReLU, 3x3, BN, plus the shortcut, without a final activation.

    Parameters
    ----------
    in_channels, channels
        Number of input and output channels.
    stride
        Stride of the second convolution and of the shortcut.
    project
        Whether the shortcut is a 1x1 convolution with batch normalisation; otherwise the identity.

    Inputs
    ------
    x : (B, in_channels, H, W) float32

    Outputs
    -------
    (B, channels, ceil(H / stride), ceil(W / stride)) float32

    Notes
    -----
    The improved residual unit ("IR" in LResNet-E-IR) of Deng et al., "ArcFace", arXiv:1801.07698,
    network settings of version 1. Batch normalisation before the first and after the last
    convolution and no activation after the sum come from Han et al., "Deep Pyramidal Residual
    Networks", arXiv:1610.02915.
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
    """IResNet: a stem at full resolution, four stages that halve it, and a dense embedding.

    Parameters
    ----------
    units
        Number of units of each stage.
    embedding_size
        Length E of the embedding.
    dropout
        Fraction of the last feature map dropped in training.
    channels
        Number of channels of each stage; the stem has that of the first. Only the small nets of
        tests differ from the paper.
    image_size
        (height, width) of the input in pixels; the last layer depends on it.

    Inputs
    ------
    x : (B, 3, *image_size) float32, normalised to about -1..1

    Outputs
    -------
    (B, E) float32, not normalised to unit length

    Notes
    -----
    LResNet-E-IR of Deng et al., "ArcFace", arXiv:1801.07698, network settings of version 1: "L" for
    the first convolution, 3x3 with stride 1 and no pooling, so that 112x112 pixels become 7x7; "E"
    for the last layers (`nets.embedding.DenseEmbedding`). Residual learning and the initial
    variance of the convolutions: He et al., arXiv:1512.03385 and arXiv:1502.01852. All shapes are
    known, so `initialize()` allocates immediately and without a first batch.
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
    """Return the function that builds an `IResNet` of a depth in ``UNITS``.

    Parameters
    ----------
    depth
        Number of layers in the usual count: a key of ``UNITS``.
    """
    name = f"iresnet{depth}"

    def build(
        image_size: tuple[int, int] = (112, 112),
        *,
        embedding_size: EmbeddingSize = 512,
        dropout: Dropout = 0.0,
    ) -> IResNet:
        size = check_image_size(name, image_size)
        features = STAGE_CHANNELS[-1] * math.prod(feature_size(size, len(STAGE_CHANNELS)))
        check_features(name, size, features, embedding_size)
        return IResNet(UNITS[depth], embedding_size, dropout=dropout, image_size=size)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""IResNet of {depth} layers, the residual network of the ArcFace paper.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels.
    embedding_size
        Length of the embedding.
    dropout
        Fraction of the last feature map dropped in training. The MXNet networks of the paper
        use 0.4, InsightFace's later training script uses 0.

    Raises
    ------
    ValueError
        If the images are too small, or the last layer is too large for MXNet.

    Notes
    -----
    LResNet{depth}E-IR of Deng et al., "ArcFace", arXiv:1801.07698, network settings of version 1.
    """
    return build
