# SPDX-License-Identifier: Apache-2.0
"""MnasNet for faces: inverted bottlenecks with depthwise convolutions of 3x3 and 5x5 pixels.

Shapes: B is the number of images in the batch, E the number of dimensions of an embedding.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from mxnet import gluon
from mxnet.gluon import nn

from nets.blocks import ConvNormPReLU
from nets.bottleneck import LinearBottleneck
from nets.builder import describe_builder
from nets.embedding import MAX_EMBEDDING_SIZE, Dropout, Output, build_output
from nets.image_size import check_image_size, feature_size
from nets.width import Width
from ops.mode_graphs import ModeGraphs
from ranges import Within

STEM_CHANNELS = (32, 16)
LAST_CHANNELS = 1024


class Stage(NamedTuple):
    """Consecutive bottlenecks with equal numbers of output channels."""

    expansion: int
    """Quotient of the expanded channels and the input channels of each block."""
    channels: int
    blocks: int
    stride: int
    """Stride of the first block."""
    kernel: int
    """Height and width of the depthwise convolution of the first block; later blocks have 3."""


STAGES = (
    Stage(3, 24, 3, 2, 3),
    Stage(3, 40, 3, 2, 5),
    Stage(6, 80, 3, 2, 5),
    Stage(6, 96, 2, 1, 3),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)
EmbeddingSize = Annotated[
    int, Within(1, MAX_EMBEDDING_SIZE, "the embedding size in InsightFace is 256")
]


class MnasNet(ModeGraphs):
    """MnasNet: a stem with stride 1, six stages of inverted bottlenecks, an embedding output.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels, which determines the size of the last layers.
    width
        Factor on the number of channels of every layer; the result is rounded down.
    embedding_size
        Number of dimensions E of the embedding.
    output
        Last layers, a key of `nets.embedding.OUTPUTS`.
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
    Tan et al., "MnasNet", arXiv:1807.11626.  The stages, the widths and the 1024 channels of the
    last convolution are those of InsightFace's fmnasnet.  In fmnasnet the first convolution has
    stride 1, PReLU replaces ReLU, only the first block of a stage may have a 5x5 convolution, and
    the first block of a stage never adds its input to its output.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (112, 112),
        *,
        width: float = 1.0,
        embedding_size: int = 256,
        output: str = "GDC",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        size = check_image_size("mnasnet", image_size)
        super().__init__(**kwargs)
        stem, before = (round_down(channels, width) for channels in STEM_CHANNELS)
        last = round_down(LAST_CHANNELS, width)
        with self.name_scope():
            self.stem = ConvNormPReLU(3, stem, 3, 1, 1)
            self.stem_depthwise = ConvNormPReLU(stem, stem, 3, 1, 1, groups=stem)
            self.stem_pointwise = ConvNormPReLU(stem, before)
            self.stages = nn.HybridSequential()
            for each in STAGES:
                channels = round_down(each.channels, width)
                stage = nn.HybridSequential()
                for index in range(each.blocks):
                    stride, kernel = (1, 3) if index else (each.stride, each.kernel)
                    expanded = each.expansion * before
                    stage.add(
                        LinearBottleneck(
                            before,
                            channels,
                            expanded,
                            stride,
                            kernel=kernel,
                            residual=index > 0,
                        )
                    )
                    before = channels
                self.stages.add(stage)
            self.last = ConvNormPReLU(before, last)
            remaining = feature_size(size, sum(each.stride == 2 for each in STAGES))
            self.embedding = build_output(
                output, last, embedding_size, remaining, name="mnasnet", dropout=dropout
            )

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.stem_pointwise(self.stem_depthwise(self.stem(x)))
        return self.embedding(self.last(self.stages(x)))


def round_down(channels: int, width: float) -> int:
    """Multiply a number of channels by ``width`` and round the product down, to at least 1."""
    return max(1, int(channels * width))


def mnasnet(name: str, default_width: float) -> Callable[..., gluon.HybridBlock]:
    """Return a function that builds `MnasNet`, by default with the width ``default_width``."""

    def build(
        image_size: tuple[int, int] = (112, 112),
        *,
        width: Width = default_width,
        embedding_size: EmbeddingSize = 256,
        output: Output = "GDC",
        dropout: Dropout = 0.0,
    ) -> MnasNet:
        return MnasNet(
            image_size,
            width=width,
            embedding_size=embedding_size,
            output=output,
            dropout=dropout,
        )

    describe_builder(
        build,
        name,
        "MnasNet with a stem of stride 1 and PReLU, as InsightFace's fmnasnet.",
        notes='Tan et al., "MnasNet", arXiv:1807.11626.',
    )
    return build
