# SPDX-License-Identifier: Apache-2.0
"""DenseNet for faces: each layer gets the outputs of all earlier layers of its block.

Shapes: B is the number of images in the batch, E the number of dimensions of an embedding, C the
number of channels of a feature map, H and W are its height and width.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from mxnet import gluon
from mxnet.gluon import nn

from nets.blocks import BatchNorm, PReLU, ReLU, convolution
from nets.builder import describe_builder
from nets.embedding import MAX_EMBEDDING_SIZE, Dropout, Output, build_output
from nets.image_size import check_image_size
from nets.width import Width
from ops.mode_graphs import ModeGraphs
from ranges import Within

BOTTLENECK = 4
"""Number of channels between the two convolutions of a layer, divided by the growth rate."""
FUSED = False
"""Whether training uses the fused operators; `ops.layers` explains why false is faster here."""
MIN_SIDE_PIXELS = 15
"""Minimum height and width of an image, which leave one pixel after four halvings."""


CHANNEL_STEP = 16
"""All numbers of channels are multiples of this number.

oneDNN stores channels in blocks of 16.  In training MXNet 1.9.1 cannot split a concatenation within
such a block, and fails with "could not construct a sub-memory"."""


class Layers(NamedTuple):
    """Numbers that define a DenseNet."""

    stem: int
    """Number of output channels of the first convolution."""
    growth: int
    """Number of channels that each layer appends."""
    blocks: tuple[int, ...]
    """Number of layers in each block."""


LAYERS = {
    121: Layers(64, 32, (6, 12, 24, 16)),
    161: Layers(96, 48, (6, 12, 36, 24)),
    169: Layers(64, 32, (6, 12, 32, 32)),
    201: Layers(64, 32, (6, 12, 48, 32)),
}
"""Mapping from the number in the name of a DenseNet to its layers."""
EmbeddingSize = Annotated[
    int, Within(1, MAX_EMBEDDING_SIZE, "the embedding size in InsightFace is 512")
]
LayerDropout = Annotated[
    float, Within(0, 1, "InsightFace uses 0, the DenseNet paper up to 0.2", open_high=True)
]


class DenseLayer(gluon.HybridBlock):
    """Two convolutions whose output is appended to the channels of their input.

    The order is: batch normalisation, PReLU, 1x1 convolution, batch normalisation, PReLU, 3x3
    convolution, dropout.

    Parameters
    ----------
    in_channels
        Number of channels C of the input.
    growth
        Number of channels that the layer appends.
    dropout
        Fraction of the appended values that training sets to 0.

    Inputs
    ------
    x : (B, C, H, W) float32

    Outputs
    -------
    (B, C + growth, H, W) float32

    Notes
    -----
    Huang et al., "Densely Connected Convolutional Networks", arXiv:1608.06993, DenseNet-B, with
    PReLU instead of ReLU as in InsightFace.
    """

    def __init__(self, in_channels: int, growth: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        hidden = BOTTLENECK * growth
        with self.name_scope():
            self.norm = BatchNorm(in_channels, FUSED)
            self.act = PReLU(in_channels, FUSED)
            self.squeeze = convolution(in_channels, hidden)
            self.squeeze_norm = BatchNorm(hidden, FUSED)
            self.squeeze_act = PReLU(hidden, FUSED)
            self.conv = convolution(hidden, growth, 3)
            self.dropout = nn.Dropout(dropout) if dropout else None

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = self.squeeze(self.act(self.norm(x)))
        y = self.conv(self.squeeze_act(self.squeeze_norm(y)))
        return F.concat(x, y if self.dropout is None else self.dropout(y), dim=1)


class Transition(gluon.HybridBlock):
    """Batch normalisation, PReLU, 1x1 convolution and average pooling between two blocks.

    Parameters
    ----------
    in_channels
        Number of input channels.
    channels
        Number of output channels.

    Inputs
    ------
    x : (B, in_channels, H, W) float32

    Outputs
    -------
    (B, channels, floor(H / 2), floor(W / 2)) float32
    """

    def __init__(self, in_channels: int, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.norm = BatchNorm(in_channels, FUSED)
            self.act = PReLU(in_channels, FUSED)
            self.conv = convolution(in_channels, channels)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.conv(self.act(self.norm(x)))
        return F.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="avg")


class DenseNet(ModeGraphs):
    """DenseNet: a stem with stride 1 and pooling, four dense blocks, an embedding output.

    Parameters
    ----------
    layers
        Numbers that define the network.
    image_size
        (height, width) of the images in pixels, which determines the size of the last layers.
    embedding_size
        Number of dimensions E of the embedding.
    output
        Last layers, a key of `nets.embedding.OUTPUTS`.
    dropout
        Fraction of the values of the last feature map that training sets to 0.
    layer_dropout
        Fraction of the values of each dense layer that training sets to 0.
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
    DenseNet-BC of Huang et al., "Densely Connected Convolutional Networks", arXiv:1608.06993, table
    1.  As in InsightFace's fdensenet, the first convolution has 3x3 pixels and stride 1, and PReLU
    replaces ReLU between the dense layers.
    """

    def __init__(
        self,
        layers: Layers,
        image_size: tuple[int, int] = (112, 112),
        *,
        embedding_size: int = 512,
        output: str = "E",
        dropout: float = 0.0,
        layer_dropout: float = 0.0,
        name: str = "densenet",
        **kwargs: Any,
    ) -> None:
        height, width = check_image_size(name, image_size, MIN_SIDE_PIXELS)
        super().__init__(**kwargs)
        height, width = (height + 1) // 2, (width + 1) // 2
        before = layers.stem
        with self.name_scope():
            self.stem = convolution(3, before, 3)
            self.stem_norm = BatchNorm(before, FUSED)
            self.stages = nn.HybridSequential()
            for index, count in enumerate(layers.blocks):
                stage = nn.HybridSequential()
                if index:
                    after = before // 2 // CHANNEL_STEP * CHANNEL_STEP
                    stage.add(Transition(before, after))
                    before, height, width = after, height // 2, width // 2
                _add_dense_layers(stage, before, count, layers.growth, layer_dropout)
                before += count * layers.growth
                self.stages.add(stage)
            self.last_norm = BatchNorm(before, FUSED)
            self.act = ReLU(before)
            self.embedding = build_output(
                output, before, embedding_size, (height, width), name=name, dropout=dropout
            )

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.act(self.stem_norm(self.stem(x)))
        x = F.Pooling(x, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="max")
        return self.embedding(self.act(self.last_norm(self.stages(x))))


def _add_dense_layers(
    stage: nn.HybridSequential, in_channels: int, count: int, growth: int, dropout: float
) -> None:
    for index in range(count):
        stage.add(DenseLayer(in_channels + index * growth, growth, dropout))


def scaled_layers(layers: Layers, width: float) -> Layers:
    """Multiply the stem channels and the growth by ``width``; round both to multiples of 16."""
    stem, growth = (
        max(1, int(count * width / CHANNEL_STEP + 0.5)) * CHANNEL_STEP for count in layers[:2]
    )
    return Layers(stem, growth, layers.blocks)


def densenet(depth: int) -> Callable[..., gluon.HybridBlock]:
    """Return a function that builds a `DenseNet`; ``depth`` is a key of ``LAYERS``."""
    name = f"densenet{depth}"

    def build(
        image_size: tuple[int, int] = (112, 112),
        *,
        width: Width = 1.0,
        embedding_size: EmbeddingSize = 512,
        output: Output = "E",
        dropout: Dropout = 0.0,
        layer_dropout: LayerDropout = 0.0,
    ) -> DenseNet:
        return DenseNet(
            scaled_layers(LAYERS[depth], width),
            image_size,
            embedding_size=embedding_size,
            output=output,
            dropout=dropout,
            layer_dropout=layer_dropout,
            name=name,
        )

    describe_builder(
        build,
        name,
        f"DenseNet of {depth} layers with a stem of stride 1, as InsightFace's fdensenet.",
        parameters={
            "width": "Factor on the channels of the stem and on the growth rate; the results are "
            "rounded to\n        multiples of 16.",
            "layer_dropout": "Fraction of the values of each dense layer that training sets to 0.",
        },
        notes='Huang et al., "Densely Connected Convolutional Networks", arXiv:1608.06993.',
    )
    return build
