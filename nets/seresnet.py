# SPDX-License-Identifier: Apache-2.0
"""SE-ResNet of GluonFR: pre-activation bottlenecks with squeeze-and-excitation and PReLU.

Shapes: B is the number of images in the batch, E the number of dimensions of an embedding.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from mxnet import gluon
from mxnet.gluon import nn

from nets.blocks import ConvNormPReLU, fixed_norm
from nets.builder import describe_builder
from nets.embedding import MAX_EMBEDDING_SIZE, Dropout, Output, build_output
from nets.image_size import check_image_size, feature_size
from nets.preactivation import FUSED, PreActivationUnit
from nets.width import Width, scale_channels
from ops.mode_graphs import ModeGraphs
from ranges import Within

STEM_CHANNELS = 64
LAYERS = {
    18: ((2, 2, 2, 2), (64, 128, 256, 512)),
    50: ((3, 4, 6, 3), (256, 512, 1024, 2048)),
    101: ((3, 4, 23, 3), (256, 512, 1024, 2048)),
}
"""Mapping from the number in a network's name to the numbers of units and of channels per stage.

The units of seresnet18 are bottlenecks too, so its main path has 25 convolutions and a linear
layer."""
EmbeddingSize = Annotated[
    int, Within(1, MAX_EMBEDDING_SIZE, "the embedding size in GluonFR is 512")
]


class SEResNet(ModeGraphs):
    """SE-ResNet: normalised input, a stem with pooling, four stages of bottlenecks.

    Parameters
    ----------
    units
        Number of residual units in each stage.
    channels
        Number of output channels of each stage.
    image_size
        (height, width) of the images in pixels.
    stem_channels
        Number of channels of the first convolution.
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
    Structure of l_se_resnet18v2, 50v2 and 101v2 of GluonFR, after He et al., arXiv:1603.05027, and
    Hu et al., "Squeeze-and-Excitation Networks", arXiv:1709.01507.  GluonFR has one PReLU slope for
    all channels; this network has one slope for each channel.
    """

    def __init__(
        self,
        units: Sequence[int],
        channels: Sequence[int],
        image_size: tuple[int, int] = (112, 112),
        *,
        stem_channels: int = STEM_CHANNELS,
        embedding_size: int = 512,
        output: str = "GAP_PRELU",
        dropout: float = 0.0,
        name: str = "seresnet",
        **kwargs: Any,
    ) -> None:
        size = check_image_size(name, image_size)
        super().__init__(**kwargs)
        before = stem_channels
        with self.name_scope():
            self.input_norm = fixed_norm(3, shift=False)
            self.stem = ConvNormPReLU(3, before, 3, 1, 1, fused=FUSED)
            self.stages = nn.HybridSequential()
            for index, (repeats, after) in enumerate(zip(units, channels, strict=True)):
                stage = nn.HybridSequential()
                stride, project = 1 if index == 0 else 2, index > 0 or after != before
                stage.add(PreActivationUnit(before, after, stride, project=project, se=True))
                for _ in range(repeats - 1):
                    stage.add(PreActivationUnit(after, after, se=True))
                self.stages.add(stage)
                before = after
            remaining = feature_size(size, len(units))
            self.embedding = build_output(
                output, before, embedding_size, remaining, name=name, dropout=dropout
            )

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.stem(self.input_norm(x))
        x = F.Pooling(x, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="max")
        return self.embedding(self.stages(x))


def seresnet(depth: int) -> Callable[..., gluon.HybridBlock]:
    """Return a function that builds an `SEResNet`; ``depth`` is a key of ``LAYERS``."""
    name = f"seresnet{depth}"
    units, channels = LAYERS[depth]

    def build(
        image_size: tuple[int, int] = (112, 112),
        *,
        width: Width = 1.0,
        embedding_size: EmbeddingSize = 512,
        output: Output = "GAP_PRELU",
        dropout: Dropout = 0.0,
    ) -> SEResNet:
        return SEResNet(
            units,
            [scale_channels(each, width) for each in channels],
            image_size,
            stem_channels=scale_channels(STEM_CHANNELS, width),
            embedding_size=embedding_size,
            output=output,
            dropout=dropout,
            name=name,
        )

    describe_builder(
        build,
        name,
        f"SE-ResNet with the structure of GluonFR's l_se_resnet{depth}v2.",
        notes='Hu et al., "Squeeze-and-Excitation Networks", arXiv:1709.01507.',
    )
    return build
