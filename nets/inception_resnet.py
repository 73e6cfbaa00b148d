# SPDX-License-Identifier: Apache-2.0
"""Inception-ResNet-v2: residual units with parallel convolutions of several sizes."""

from typing import Any

from nets.embedding import Dropout, EmbeddingSize, Output, output_problems
from nets.image_size import check_image_size
from nets.trunk import TYPICAL_EMBEDDING_SIZE, Head, TrunkNet

MIN_SIDE_PIXELS = 39
"""Minimum height and width of an image in pixels.

Many convolutions have no padding, so the last feature map of a smaller image would be empty."""
EPSILON = 1e-3
"""Number added to the variance in batch normalisation, as in the authors' TensorFlow code."""


def inception_resnet_v2(
    image_size: tuple[int, int] = (112, 112),
    *,
    embedding_size: EmbeddingSize = TYPICAL_EMBEDDING_SIZE,
    output: Output = "E",
    dropout: Dropout = 0.0,
) -> TrunkNet:
    """Inception-ResNet-v2, a residual network of Inception units.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels.
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
    Szegedy et al., "Inception-v4, Inception-ResNet", arXiv:1602.07261, figures 3 and 15 to 19. The
    trunk comes from gluoncv2. An image of 112x112 pixels gives feature maps of 5x5 pixels.
    """
    size = check_image_size(
        "inception_resnet_v2",
        image_size,
        MIN_SIDE_PIXELS,
        reason="its convolutions have no padding",
    )

    def make_trunk() -> Any:
        from gluoncv2.models.inceptionresnetv2 import InceptionResNetV2

        return InceptionResNetV2(bn_epsilon=EPSILON).features

    head = Head("inception_resnet_v2", embedding_size, output, dropout)
    return TrunkNet(make_trunk, size, head, epsilon=EPSILON)


inception_resnet_v2.problems = output_problems  # type: ignore[attr-defined]
