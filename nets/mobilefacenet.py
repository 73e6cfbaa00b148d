# SPDX-License-Identifier: Apache-2.0
"""MobileFaceNet: a face network of about one million parameters, and its variants.

Shapes: B is the number of images in the batch, E the number of dimensions of an embedding.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from mxnet import gluon
from mxnet.gluon import nn

from nets.blocks import ConvNormPReLU
from nets.bottleneck import LinearBottleneck
from nets.builder import describe_builder, length_problems
from nets.embedding import MAX_EMBEDDING_SIZE, Dropout, Output, build_output
from nets.image_size import check_image_size, feature_size
from nets.width import Width, scale_channels
from ops.mode_graphs import ModeGraphs
from ranges import Within

STEM_CHANNELS = 64
LAST_CHANNELS = 512
BLOCKS = (1, 4, 6, 2)
"""Number of blocks in the stem, then for each stage the number of blocks after its first block."""
STAGES = (
    (64, 128, 128),
    (128, 256, 256),
    (128, 512, 256),
)
"""One tuple per stage: number of output channels, number of expanded channels of the first block
(which has stride 2), number of expanded channels of each later block."""
EmbeddingSize = Annotated[
    int, Within(1, MAX_EMBEDDING_SIZE, "the embedding size in the paper is 128")
]
Blocks = list[Annotated[int, Within(1, 256, "the usual numbers of blocks are [1, 4, 6, 2]")]]
Scale = Annotated[int, Within(1, 8, "arcface_torch uses 2 (mbf) and 4 (mbf_large)")]


class MobileFaceNet(ModeGraphs):
    """MobileFaceNet: bottlenecks between a strided stem and a global depthwise convolution.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels, which determines the size of the last layers.
    blocks
        Four numbers: the number of blocks of the stem, then for each of the three stages the
        number of blocks after its first block.  In a stem of one block, the block is a depthwise
        convolution.  In a longer stem, all blocks are bottlenecks.
    width
        Factor on the number of channels of every layer; the result is rounded to a multiple of 8.
        The width does not change the embedding size.
    scale
        Factor on the number of output channels of the stem and of each bottleneck.  The scale does
        not change the number of expanded channels.  The depthwise convolution of the stem has
        ``scale`` channels in each group.
    se
        Whether squeeze-and-excitation ends each bottleneck.
    stem_expansion
        Number of expanded channels of the bottlenecks of the stem at width 1.
    embedding_size
        Number of dimensions E of the embedding.
    output
        Last layers, a key of `nets.embedding.OUTPUTS`.
    dropout
        Fraction of the values of the last feature map that training sets to 0.
    name
        Name of the network, for error messages.

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
    Chen et al., "MobileFaceNets", arXiv:1804.07573, table 1. `initialize()` allocates all
    parameters immediately, because no shape depends on the first batch.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (112, 112),
        *,
        blocks: Sequence[int] = BLOCKS,
        width: float = 1.0,
        scale: int = 1,
        se: bool = False,
        stem_expansion: int = STEM_CHANNELS,
        embedding_size: int = 128,
        output: str = "GDC",
        dropout: float = 0.0,
        name: str = "mobilefacenet",
        **kwargs: Any,
    ) -> None:
        size = check_image_size(name, image_size)
        super().__init__(**kwargs)
        groups = scale_channels(STEM_CHANNELS, width)
        before = groups * scale
        last = scale_channels(LAST_CHANNELS, width)
        with self.name_scope():
            self.stem = ConvNormPReLU(3, before, 3, 2, 1)
            if blocks[0] == 1:
                self.stem_depthwise = ConvNormPReLU(before, before, 3, 1, 1, groups=groups)
            else:
                self.stem_depthwise = nn.HybridSequential()
                for _ in range(blocks[0]):
                    self.stem_depthwise.add(
                        LinearBottleneck(
                            before, before, scale_channels(stem_expansion, width), se=se
                        )
                    )
            self.stages = nn.HybridSequential()
            for (channels, *expansions), repeats in zip(STAGES, blocks[1:], strict=True):
                channels = scale_channels(channels, width) * scale
                first, rest = (scale_channels(each, width) for each in expansions)
                stage = nn.HybridSequential()
                stage.add(LinearBottleneck(before, channels, first, 2, se=se))
                for _ in range(repeats):
                    stage.add(LinearBottleneck(channels, channels, rest, se=se))
                self.stages.add(stage)
                before = channels
            self.last = ConvNormPReLU(before, last)
            remaining = feature_size(size, 1 + len(STAGES))
            self.embedding = build_output(
                output, last, embedding_size, remaining, name=name, dropout=dropout
            )

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.stem_depthwise(self.stem(x))
        return self.embedding(self.last(self.stages(x)))


def mobilefacenet(
    name: str,
    *,
    blocks: Sequence[int] = BLOCKS,
    scale: int = 1,
    se: bool = False,
    stem_expansion: int = STEM_CHANNELS,
    embedding_size: int = 128,
    text: str,
) -> Callable[..., gluon.HybridBlock]:
    """Return a function that builds a variant of MobileFaceNet.

    Parameters
    ----------
    name
        Name of the variant.
    blocks, scale, se, embedding_size
        Defaults of the settings, see `MobileFaceNet`.
    stem_expansion
        Number of expanded channels of the bottlenecks of the stem.
    text
        Description of the variant.
    """
    default_blocks, default_scale, default_se = list(blocks), scale, se
    default_size = embedding_size

    def build(
        image_size: tuple[int, int] = (112, 112),
        *,
        width: Width = 1.0,
        embedding_size: EmbeddingSize = default_size,
        output: Output = "GDC",
        dropout: Dropout = 0.0,
        blocks: Blocks = default_blocks,
        scale: Scale = default_scale,
        se: bool = default_se,
    ) -> MobileFaceNet:
        return MobileFaceNet(
            image_size,
            blocks=blocks,
            width=width,
            scale=scale,
            se=se,
            stem_expansion=stem_expansion,
            embedding_size=embedding_size,
            output=output,
            dropout=dropout,
            name=name,
        )

    describe_builder(
        build,
        name,
        text,
        parameters={
            "blocks": "Four numbers: the blocks of the stem, then for each stage the blocks after "
            "its first block.",
            "scale": "Factor on the number of output channels of the stem and of each bottleneck; "
            "the number\n        of expanded channels stays the same.",
            "se": "Whether squeeze-and-excitation ends each bottleneck.",
        },
        notes='Chen et al., "MobileFaceNets", arXiv:1804.07573, table 1.',
        problems=[length_problems("blocks", 4, "one for the stem and one for each stage")],
    )
    return build
