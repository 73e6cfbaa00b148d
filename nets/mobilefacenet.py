# SPDX-License-Identifier: Apache-2.0
"""MobileFaceNet: a face network of about one million parameters."""

from typing import Annotated, Any

from mxnet.gluon import nn

import ops
from nets.blocks import ConvNormPReLU, LinearBottleneck
from nets.embedding import MAX_EMBEDDING_SIZE
from nets.embedding_layers import GlobalDepthwiseEmbedding
from nets.image_size import check_image_size, feature_size
from ranges import Within

STEM_CHANNELS = 64
LAST_CHANNELS = 512
Width = Annotated[float, Within(0, 8, "the width in the paper is 1.0", open_low=True)]
EmbeddingSize = Annotated[
    int, Within(1, MAX_EMBEDDING_SIZE, "the embedding size in the paper is 128")
]
# One tuple per stage: number of output channels, number of expanded channels of the first block
# (which has stride 2), number of expanded channels of each later block, number of later blocks.
# The usual variant has 4, 6 and 2 later blocks.
STAGES = (
    (64, 128, 128, 4),
    (128, 256, 256, 6),
    (128, 512, 256, 2),
)


class MobileFaceNet(ops.TwoGraphs):
    """MobileFaceNet: bottlenecks between a strided stem and a global depthwise convolution.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels, which determines the size of the global depthwise
        convolution.
    width
        Factor on the number of channels of every layer; the result is rounded to a multiple of 8.
        The width does not change the embedding size.
    embedding_size
        Number of dimensions E of the embedding.

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
        width: Width = 1.0,
        embedding_size: EmbeddingSize = 128,
        **kwargs: Any,
    ) -> None:
        size = check_image_size("mobilefacenet", image_size)
        super().__init__(**kwargs)
        stem = scale_channels(STEM_CHANNELS, width)
        last = scale_channels(LAST_CHANNELS, width)
        with self.name_scope():
            self.stem = ConvNormPReLU(3, stem, 3, 2, 1)
            self.stem_depthwise = ConvNormPReLU(stem, stem, 3, 1, 1, groups=stem)
            self.stages = nn.HybridSequential()
            before = stem
            for channels, expanded_first, expanded_rest, repeats in STAGES:
                channels = scale_channels(channels, width)
                stage = nn.HybridSequential()
                stage.add(
                    LinearBottleneck(before, channels, scale_channels(expanded_first, width), 2)
                )
                for _ in range(repeats):
                    stage.add(
                        LinearBottleneck(channels, channels, scale_channels(expanded_rest, width))
                    )
                self.stages.add(stage)
                before = channels
            self.last = ConvNormPReLU(before, last)
            remaining = feature_size(size, 1 + len(STAGES))
            self.embedding = GlobalDepthwiseEmbedding(last, embedding_size, remaining)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.stem_depthwise(self.stem(x))
        return self.embedding(self.last(self.stages(x)))


def scale_channels(channels: int, width: float) -> int:
    """Multiply a number of channels by ``width`` and round it to a multiple of 8, at least 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)
