# SPDX-License-Identifier: Apache-2.0
"""IResNet: the residual networks of the ArcFace paper, with 24 to 65 million parameters.

Shapes: B is the number of images in the batch, E the number of dimensions of an embedding, H and W
are the height and the width of a feature map.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from mxnet import gluon
from mxnet.gluon import nn

from nets.blocks import BatchNorm, ConvNorm, ConvNormPReLU, PReLU
from nets.builder import describe_builder, length_problems
from nets.embedding import MAX_EMBEDDING_SIZE, Dropout, Output, build_output
from nets.image_size import check_image_size, feature_size
from nets.squeeze_excitation import SqueezeExcitation
from nets.width import Width, scale_channels
from ops.mode_graphs import ModeGraphs
from ranges import Within

STEM_CHANNELS = 64
STAGE_CHANNELS = (64, 128, 256, 512)
UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    152: (3, 8, 36, 3),
    200: (6, 26, 60, 6),
}
"""Mapping from the number of layers to the number of residual units in each of the four stages.

The numbers for 200 layers are those of arcface_torch.  With 200 layers, InsightFace's MXNet code
has 3, 24, 36 and 3 units instead."""
FUSED = False
"""Whether training uses the fused operators.

IResNet has no depthwise convolutions, so the fused operators would slow it down; `ops.layers` gives
the reason."""
EmbeddingSize = Annotated[
    int, Within(1, MAX_EMBEDDING_SIZE, "the embedding size in the paper is 512")
]
Units = list[Annotated[int, Within(1, 1000, "iresnet50 has the units [3, 4, 14, 3]")]]
UnitKind = Literal[1, 3]


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
    se
        Whether squeeze-and-excitation follows the last batch normalisation.

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
    convolution, and no activation after the sum. InsightFace's MXNet code calls the unit "unit 3".
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        project: bool = False,
        se: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.norm = BatchNorm(in_channels, FUSED)
            self.first = ConvNormPReLU(in_channels, channels, 3, 1, 1, fused=FUSED)
            self.second = ConvNorm(channels, channels, 3, stride, 1, fused=FUSED)
            self.se = SqueezeExcitation(channels) if se else None
            self.shortcut = (
                ConvNorm(in_channels, channels, 1, stride, fused=FUSED) if project else None
            )

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = self.second(self.first(self.norm(x)))
        if self.se is not None:
            y = self.se(y)
        return F.elemwise_add(y, self.shortcut(x) if self.shortcut is not None else x)


class BasicUnit(gluon.HybridBlock):
    """Residual unit with two 3x3 convolutions and PReLU after the sum.

    The order is: 3x3 convolution, batch normalisation, PReLU, 3x3 convolution, batch normalisation,
    addition of the shortcut, PReLU. Parameters, inputs and outputs are those of `IRUnit`.

    Notes
    -----
    He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, figure 5, with
    PReLU instead of ReLU. InsightFace's MXNet code calls the unit "unit 1". The second convolution
    has the stride, as in InsightFace's networks whose stem has stride 1.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        project: bool = False,
        se: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.first = ConvNormPReLU(in_channels, channels, 3, 1, 1, fused=FUSED)
            self.second = ConvNorm(channels, channels, 3, stride, 1, fused=FUSED)
            self.se = SqueezeExcitation(channels) if se else None
            self.shortcut = (
                ConvNorm(in_channels, channels, 1, stride, fused=FUSED) if project else None
            )
            self.act = PReLU(channels, FUSED)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = self.second(self.first(x))
        if self.se is not None:
            y = self.se(y)
        return self.act(F.elemwise_add(y, self.shortcut(x) if self.shortcut is not None else x))


UNIT_KINDS: dict[int, type[gluon.HybridBlock]] = {1: BasicUnit, 3: IRUnit}
"""Mapping from the number of a residual unit in InsightFace's MXNet code to the unit."""


class IResNet(ModeGraphs):
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
        Number of channels of each stage, by default as in the paper. The stem has as many channels
        as the first stage.
    image_size
        (height, width) of the images in pixels, which determines the size of the last layer.
    unit
        Residual unit, a key of ``UNIT_KINDS``.
    se
        Whether squeeze-and-excitation ends each residual unit.
    output
        Last layers, a key of `nets.embedding.OUTPUTS`.
    name
        Name of the network, for error messages.

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
    (`nets.embedding_layers.DenseEmbedding`). Residual learning comes from He et al.,
    arXiv:1512.03385, the initial variance of the convolutions from He et al., arXiv:1502.01852.
    `initialize()` allocates all parameters immediately, because no shape depends on the first
    batch.
    """

    def __init__(
        self,
        units: Sequence[int],
        embedding_size: int = 512,
        *,
        dropout: float = 0.0,
        channels: Sequence[int] = STAGE_CHANNELS,
        image_size: tuple[int, int] = (112, 112),
        unit: int = 3,
        se: bool = False,
        output: str = "E",
        name: str = "iresnet",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        before, residual = channels[0], UNIT_KINDS[unit]
        with self.name_scope():
            self.stem = ConvNormPReLU(3, before, 3, 1, 1, fused=FUSED)
            self.stages = nn.HybridSequential()
            for repeats, after in zip(units, channels, strict=True):
                stage = nn.HybridSequential()
                stage.add(residual(before, after, 2, project=True, se=se))
                for _ in range(repeats - 1):
                    stage.add(residual(after, after, se=se))
                self.stages.add(stage)
                before = after
            remaining = feature_size(image_size, len(channels))
            self.embedding = build_output(
                output, before, embedding_size, remaining, name=name, dropout=dropout
            )

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
    default_units = list(UNITS[depth])

    def build(
        image_size: tuple[int, int] = (112, 112),
        *,
        width: Width = 1.0,
        embedding_size: EmbeddingSize = 512,
        output: Output = "E",
        dropout: Dropout = 0.0,
        units: Units = default_units,
        unit: UnitKind = 3,
        se: bool = False,
    ) -> IResNet:
        return IResNet(
            units,
            embedding_size,
            dropout=dropout,
            channels=[scale_channels(channels, width) for channels in STAGE_CHANNELS],
            image_size=check_image_size(name, image_size),
            unit=unit,
            se=se,
            output=output,
            name=name,
        )

    describe_builder(
        build,
        name,
        f"IResNet of {depth} layers, the residual network of the ArcFace paper.",
        parameters={
            "units": "Numbers of residual units in the four stages.",
            "unit": "Residual unit: 3 for `IRUnit`, 1 for `BasicUnit`.",
            "se": "Whether squeeze-and-excitation ends each residual unit.",
        },
        notes=f'LResNet{depth}E-IR of Deng et al., "ArcFace", arXiv:1801.07698, network settings '
        "of version 1. The MXNet networks of the paper use dropout 0.4, InsightFace's later "
        "training\n    script uses 0.",
        problems=[length_problems("units", len(STAGE_CHANNELS), "one for each stage")],
    )
    return build
