# SPDX-License-Identifier: Apache-2.0
"""EfficientNet: inverted bottlenecks with squeeze-and-excitation and swish."""

from typing import Annotated, Any

from nets.embedding import Dropout, EmbeddingSize, Output, output_problems
from nets.image_size import check_image_size
from nets.trunk import TYPICAL_EMBEDDING_SIZE, Head, TrunkNet, scale_channels, scale_stages
from ranges import Within

Width = Annotated[float, Within(0, 4, "the width of B0 is 1.0, of B7 2.0", open_low=True)]
STEM_CHANNELS = 32
LAST_CHANNELS = 1280
# Table 1 of Tan and Le, "EfficientNet", arXiv:1905.11946. As in gluoncv2, consecutive stages of the
# same resolution share one list.
CHANNELS = ([16], [24, 24], [40, 40], [80, 80, 80, 112, 112, 112], [192, 192, 192, 192, 320])
KERNELS = ([3], [3, 3], [5, 5], [3, 3, 3, 5, 5, 5], [5, 5, 5, 5, 3])
EXPANSION = 6
EPSILON = 1e-3
"""Number added to the variance in batch normalisation, as in the authors' TensorFlow code."""


def efficientnet_b0(
    image_size: tuple[int, int] = (112, 112),
    *,
    width: Width = 1.0,
    embedding_size: EmbeddingSize = TYPICAL_EMBEDDING_SIZE,
    output: Output = "GDC",
    dropout: Dropout = 0.0,
) -> TrunkNet:
    """EfficientNet-B0, the smallest EfficientNet; the larger ones are scaled versions of B0.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels.
    width
        Factor on the number of channels of every layer of the trunk; the result is rounded to a
        multiple of 8.
    embedding_size
        Number of dimensions of the embedding.
    output
        Last layers, a key of `nets.embedding.OUTPUTS`.
    dropout
        Fraction of the values of the last feature map that training sets to 0, for the outputs E, F
        and Z.

    Raises
    ------
    ValueError
        If the images are too small, or if the last layers do not support the size of the feature
        map or of the embedding.

    Notes
    -----
    Tan and Le, "EfficientNet", arXiv:1905.11946, table 1. The trunk comes from gluoncv2.
    """
    size = check_image_size("efficientnet_b0", image_size)

    def make_trunk() -> Any:
        from gluoncv2.models.efficientnet import EfficientNet

        return EfficientNet(
            channels=scale_stages(CHANNELS, width),
            init_block_channels=scale_channels(STEM_CHANNELS, width),
            final_block_channels=scale_channels(LAST_CHANNELS, width),
            kernel_sizes=[list(stage) for stage in KERNELS],
            strides_per_stage=[1, 2, 2, 2, 2],
            expansion_factors=[[1], *([EXPANSION] * len(stage) for stage in CHANNELS[1:])],
            dropout_rate=0.0,
            tf_mode=False,
            bn_epsilon=EPSILON,
        ).features

    head = Head("efficientnet_b0", embedding_size, output, dropout)
    return TrunkNet(make_trunk, size, head, epsilon=EPSILON)


efficientnet_b0.problems = output_problems  # type: ignore[attr-defined]
