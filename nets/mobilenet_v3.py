# SPDX-License-Identifier: Apache-2.0
"""MobileNetV3: bottlenecks with squeeze-and-excitation and h-swish, from an architecture search."""

from typing import Annotated, Any, Literal

from nets.embedding import Dropout, EmbeddingSize, Output, output_problems
from nets.image_size import check_image_size
from nets.trunk import TYPICAL_EMBEDDING_SIZE, Head, TrunkNet
from ranges import Within

Width = Annotated[float, Within(0, 4, "the widths of the paper are 0.35 to 1.25", open_low=True)]


def mobilenet_v3(
    image_size: tuple[int, int] = (112, 112),
    *,
    variant: Literal["large", "small"] = "large",
    width: Width = 1.0,
    embedding_size: EmbeddingSize = TYPICAL_EMBEDDING_SIZE,
    output: Output = "GDC",
    dropout: Dropout = 0.0,
) -> TrunkNet:
    """MobileNetV3, a network of bottlenecks for phones.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels.
    variant
        "large" or "small", as in the paper.
    width
        Factor on the number of channels of every layer of the trunk; the result is rounded to a
        multiple of 8. A factor below 1 does not change the last convolution of the trunk.
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
    Howard et al., "Searching for MobileNetV3", arXiv:1905.02244, tables 1 and 2. The trunk comes
    from gluoncv2.
    """
    size = check_image_size("mobilenet_v3", image_size)

    def make_trunk() -> Any:
        from gluoncv2.models.mobilenetv3 import get_mobilenetv3

        return get_mobilenetv3(version=variant, width_scale=width).features

    return TrunkNet(make_trunk, size, Head("mobilenet_v3", embedding_size, output, dropout))


mobilenet_v3.problems = output_problems  # type: ignore[attr-defined]
