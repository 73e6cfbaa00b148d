# SPDX-License-Identifier: Apache-2.0
"""VarGFaceNet: separable convolutions whose groups all have 8 input channels.

Shapes: B is the number of images in the batch, E the number of dimensions of an embedding, H and W
are the height and the width of a feature map.
"""

from collections.abc import Callable
from typing import Annotated, Any

from mxnet import gluon
from mxnet.gluon import nn

from nets.blocks import ConvNorm, ConvNormPReLU, PReLU
from nets.builder import describe_builder
from nets.embedding import MAX_EMBEDDING_SIZE, Dropout, Output, build_output
from nets.image_size import check_image_size, feature_size
from nets.squeeze_excitation import SqueezeExcitation
from nets.width import scale_channels
from ops.mode_graphs import ModeGraphs
from ranges import Within

GROUP_CHANNELS = 8
"""Number of input channels of each group of a convolution."""
FACTOR = 2
"""Quotient of the output channels and the input channels of a grouped convolution."""
SE_RATIO = 4
STAGE_CHANNELS = (32, 64, 128, 256)
"""Channels of the stem and of the three stages at width 1."""
UNITS = (3, 7, 4)
LAST_CHANNELS = 1024
EmbeddingSize = Annotated[
    int, Within(1, MAX_EMBEDDING_SIZE, "the embedding size in the paper is 512")
]
Width = Annotated[float, Within(0, 8, "the width in the paper is 1.25", open_low=True)]


class GroupSeparable(gluon.HybridBlock):
    """Grouped 3x3 convolution, then a 1x1 convolution.

    Batch normalisation follows each convolution.  PReLU follows the first batch normalisation.

    Parameters
    ----------
    in_channels
        Number of input channels, a multiple of ``GROUP_CHANNELS``.
    channels
        Number of output channels.
    stride
        Stride of the grouped convolution.
    factor
        Quotient of the output channels and the input channels of the grouped convolution.
    activated
        Whether PReLU follows the second batch normalisation.

    Inputs
    ------
    x : (B, in_channels, H, W) float32

    Outputs
    -------
    (B, channels, ceil(H / stride), ceil(W / stride)) float32

    Notes
    -----
    Zhang et al., "VarGNet", arXiv:1907.05653, section 3.1.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        *,
        factor: int = FACTOR,
        activated: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        hidden, groups = factor * in_channels, in_channels // GROUP_CHANNELS
        pointwise = ConvNormPReLU if activated else ConvNorm
        with self.name_scope():
            self.grouped = ConvNormPReLU(in_channels, hidden, 3, stride, 1, groups=groups)
            self.pointwise = pointwise(hidden, channels)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.pointwise(self.grouped(x))


class VarGUnit(gluon.HybridBlock):
    """Residual unit of grouped separable convolutions, with PReLU after the sum.

    Parameters
    ----------
    in_channels
        Number of input channels.
    channels
        Number of output channels.
    stride
        Stride of the first separable convolution and of the shortcut.
    factor
        Quotient of the output channels and the input channels of each grouped convolution.
    branches
        Number of parallel separable convolutions before the last one: 1 or 2.  PReLU follows the
        sum of their outputs.
    project
        Whether the shortcut is a separable convolution; if not, the shortcut is the identity.
    se
        Whether squeeze-and-excitation follows the last separable convolution.

    Inputs
    ------
    x : (B, in_channels, H, W) float32

    Outputs
    -------
    (B, channels, ceil(H / stride), ceil(W / stride)) float32

    Notes
    -----
    Yan et al., "VarGFaceNet", arXiv:1910.04985, figure 1: (a) the normal block, (b) the
    down-sampling block with two branches.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        *,
        factor: int = FACTOR,
        branches: int = 1,
        project: bool = False,
        se: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.shortcut = (
                GroupSeparable(in_channels, channels, stride, factor=factor) if project else None
            )
            self.first = GroupSeparable(
                in_channels, channels, stride, factor=factor, activated=branches == 1
            )
            two = branches == 2
            self.branch = (
                GroupSeparable(in_channels, channels, stride, factor=factor) if two else None
            )
            self.branch_act = PReLU(channels) if two else None
            self.second = GroupSeparable(channels, channels, factor=factor)
            self.se = SqueezeExcitation(channels, SE_RATIO) if se else None
            self.act = PReLU(channels)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = self.first(x)
        if self.branch is not None and self.branch_act is not None:
            y = self.branch_act(F.elemwise_add(y, self.branch(x)))
        y = self.second(y)
        if self.se is not None:
            y = self.se(y)
        return self.act(F.elemwise_add(y, x if self.shortcut is None else self.shortcut(x)))


class VarGFaceNet(ModeGraphs):
    """VarGFaceNet: a stem, three stages of grouped separable convolutions, a grouped global pool.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels, which determines the size of the last grouped
        convolution.
    width
        Factor on the number of channels of the stem and the stages; the result is rounded to a
        multiple of 8.  A width below 1 also scales the 1024 channels after the stages.
    se
        Whether squeeze-and-excitation ends the unit of the stem and, in each stage, every unit
        after the first one.
    embedding_size
        Number of dimensions E of the embedding.
    output
        Last layers, a key of `nets.embedding.OUTPUTS`.  Their input has 1x1 pixels.
    dropout
        Fraction of the values of the last feature map that training sets to 0.

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
    Yan et al., "VarGFaceNet", arXiv:1910.04985, table 1.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (112, 112),
        *,
        width: float = 1.25,
        se: bool = False,
        embedding_size: int = 512,
        output: str = "J",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        size = check_image_size("vargfacenet", image_size)
        super().__init__(**kwargs)
        before, *stages = (scale_channels(channels, width) for channels in STAGE_CHANNELS)
        last = scale_channels(LAST_CHANNELS, min(1.0, width))
        half = scale_channels(last, 0.5)
        remaining = feature_size(size, 1 + len(UNITS))
        with self.name_scope():
            self.stem = ConvNormPReLU(3, before, 3, 1, 1)
            self.stem_unit = VarGUnit(before, before, 2, factor=1, project=True, se=se)
            self.stages = nn.HybridSequential()
            for channels, units in zip(stages, UNITS, strict=True):
                stage = nn.HybridSequential()
                stage.add(VarGUnit(before, channels, 2, branches=2, project=True))
                for _ in range(units - 1):
                    stage.add(VarGUnit(channels, channels, se=se))
                self.stages.add(stage)
                before = channels
            self.last = ConvNormPReLU(before, last)
            self.pool = ConvNorm(last, last, remaining, groups=last // GROUP_CHANNELS)
            self.pool_pointwise = ConvNormPReLU(last, half)
            self.embedding = build_output(
                output, half, embedding_size, (1, 1), name="vargfacenet", dropout=dropout
            )

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.last(self.stages(self.stem_unit(self.stem(x))))
        return self.embedding(self.pool_pointwise(self.pool(x)))


def vargfacenet() -> Callable[..., gluon.HybridBlock]:
    """Return a function that builds `VarGFaceNet`."""

    def build(
        image_size: tuple[int, int] = (112, 112),
        *,
        width: Width = 1.25,
        embedding_size: EmbeddingSize = 512,
        output: Output = "J",
        dropout: Dropout = 0.0,
        se: bool = False,
    ) -> VarGFaceNet:
        return VarGFaceNet(
            image_size,
            width=width,
            se=se,
            embedding_size=embedding_size,
            output=output,
            dropout=dropout,
        )

    describe_builder(
        build,
        "vargfacenet",
        "VarGFaceNet: separable convolutions whose groups all have 8 input channels.",
        parameters={
            "width": "Factor on the number of channels of the stem and the stages; the result is "
            "rounded to a\n        multiple of 8. A width below 1 also scales the 1024 channels "
            "after the stages.",
            "se": "Whether squeeze-and-excitation ends the unit of the stem and, in each stage, "
            "every unit\n        after the first one.",
        },
        notes='Yan et al., "VarGFaceNet", arXiv:1910.04985. The network of the paper has '
        "squeeze-and-excitation. InsightFace's has none, nor has this one by default.",
    )
    return build
