# SPDX-License-Identifier: Apache-2.0
"""MobileNetV1 for faces: depthwise separable convolutions with PReLU.

Shapes: B is the number of images in the batch, E the number of dimensions of an embedding.
"""

from collections.abc import Callable
from typing import Annotated, Any

from mxnet import gluon
from mxnet.gluon import nn

from nets.blocks import ConvNormPReLU
from nets.builder import describe_builder
from nets.embedding import MAX_EMBEDDING_SIZE, Dropout, Output, build_output
from nets.image_size import check_image_size, feature_size
from nets.width import Width
from ops.mode_graphs import ModeGraphs
from ranges import Within

STEM_CHANNELS = 32
LAYERS = tuple(
    zip(
        (2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32),
        (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1),
        strict=True,
    )
)
"""One pair per depthwise separable convolution: output channels as a multiple of the channels of
the stem, and stride."""
POOL_CHANNELS = 512
"""Number of channels of the convolution of output "GDC" in InsightFace's code at every width."""
EmbeddingSize = Annotated[
    int, Within(1, MAX_EMBEDDING_SIZE, "the embedding size in InsightFace is 256")
]


class MobileNetV1(ModeGraphs):
    """MobileNetV1: a stem with stride 1, 13 depthwise separable convolutions, an embedding output.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels, which determines the size of the last layers.
    width
        Factor on the number of channels of every layer.  The stem has int(32 * width) channels, and
        the channels of all other layers are multiples of that number.
    embedding_size
        Number of dimensions E of the embedding.
    output
        Last layers, a key of `nets.embedding.OUTPUTS`.  The convolution of "GDC" has 512 channels
        if the number of its input channels is a multiple of 512.
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
    Howard et al., "MobileNets", arXiv:1704.04861, table 1.  As in InsightFace's fmobilenet, the
    first convolution has stride 1 and PReLU replaces ReLU.
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
        size = check_image_size("mobilenet_v1", image_size)
        super().__init__(**kwargs)
        stem = before = max(1, int(STEM_CHANNELS * width))
        with self.name_scope():
            self.stem = ConvNormPReLU(3, stem, 3, 1, 1)
            self.layers = nn.HybridSequential()
            for multiple, stride in LAYERS:
                separable = nn.HybridSequential()
                separable.add(ConvNormPReLU(before, before, 3, stride, 1, groups=before))
                separable.add(ConvNormPReLU(before, multiple * stem))
                self.layers.add(separable)
                before = multiple * stem
            self.embedding = build_output(
                output,
                before,
                embedding_size,
                feature_size(size, sum(stride == 2 for _, stride in LAYERS)),
                name="mobilenet_v1",
                dropout=dropout,
                pool_channels=POOL_CHANNELS if before % POOL_CHANNELS == 0 else before,
            )

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.embedding(self.layers(self.stem(x)))


def mobilenet_v1(name: str, default_width: float) -> Callable[..., gluon.HybridBlock]:
    """Return a function that builds `MobileNetV1`, by default with the width ``default_width``."""

    def build(
        image_size: tuple[int, int] = (112, 112),
        *,
        width: Width = default_width,
        embedding_size: EmbeddingSize = 256,
        output: Output = "GDC",
        dropout: Dropout = 0.0,
    ) -> MobileNetV1:
        return MobileNetV1(
            image_size,
            width=width,
            embedding_size=embedding_size,
            output=output,
            dropout=dropout,
        )

    describe_builder(
        build,
        name,
        "MobileNetV1 with a stem of stride 1 and PReLU, as InsightFace's fmobilenet.",
        notes='Howard et al., "MobileNets", arXiv:1704.04861, table 1.',
    )
    return build
