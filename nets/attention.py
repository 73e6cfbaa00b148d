# SPDX-License-Identifier: Apache-2.0
"""Residual Attention Network of GluonFR: in each stage, masks scale the feature maps.

Shapes: B is the number of images in the batch, C the number of channels, H and W are the height and
the width of a feature map, E is the number of dimensions of an embedding.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from mxnet import gluon
from mxnet.gluon import nn

from nets.blocks import BatchNorm, ConvNorm, ReLU, convolution
from nets.builder import describe_builder
from nets.embedding import MAX_EMBEDDING_SIZE, Dropout, Output, build_output
from nets.image_size import check_image_size, feature_size
from nets.preactivation import FUSED, PreActivationUnit
from nets.width import Width, scale_channels
from ops.mode_graphs import ModeGraphs
from ranges import Within

STEM_CHANNELS = 64
STAGE_CHANNELS = (256, 512, 1024)
LAST_CHANNELS = 2048
MODULES = {56: (1, 1, 1), 92: (1, 2, 3)}
"""Mapping from the number in a network's name to the numbers of attention modules per stage."""
TRUNK_UNITS = 2
EmbeddingSize = Annotated[
    int, Within(1, MAX_EMBEDDING_SIZE, "the embedding size in GluonFR is 512")
]


class MaskLevel(gluon.HybridBlock):
    """Residual units of one level of a `Mask`: before, around and after the inner levels.

    Parameters
    ----------
    channels
        Number of channels C.
    skip
        Whether the level has a unit as a shortcut around the inner levels.
    """

    def __init__(self, channels: int, *, skip: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.down = _unit(channels, channels)
            self.skip = _unit(channels, channels) if skip else None
            self.up = _unit(channels, channels)


class Mask(gluon.HybridBlock):
    """Hourglass of residual units that computes a factor from 0 to 1 for each value.

    Each level halves the resolution by a maximum pooling.  One residual unit precedes the inner
    levels, and one follows them.  A bilinear interpolation restores the resolution.  All levels but
    the innermost have a residual unit as a shortcut around the inner levels.

    Parameters
    ----------
    channels
        Number of channels C.
    size
        (height, width) of the feature map in pixels.
    levels
        Number of levels.

    Inputs
    ------
    x : (B, C, H, W) float32

    Outputs
    -------
    (B, C, H, W) float32

    Notes
    -----
    Wang et al., "Residual Attention Network for Image Classification", arXiv:1704.06904, figure 2,
    soft mask branch with r = 1.
    """

    def __init__(self, channels: int, size: tuple[int, int], levels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sizes = [feature_size(size, level) for level in range(levels)]
        with self.name_scope():
            self.levels = nn.HybridSequential()
            for level in range(levels):
                self.levels.add(MaskLevel(channels, skip=level < levels - 1))
            self.norm = BatchNorm(channels, FUSED)
            self.first = ConvNorm(channels, channels, fused=FUSED)
            self.last = convolution(channels, channels)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        skipped = []
        for level in self.levels:
            x = F.Pooling(x, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="max")
            x = level.down(x)
            skipped.append(None if level.skip is None else level.skip(x))
        for number in reversed(range(len(self.levels))):
            if skipped[number] is not None:
                x = F.elemwise_add(x, skipped[number])
            height, width = self._sizes[number]
            x = self.levels[number].up(x)
            x = F.contrib.BilinearResize2D(x, height=height, width=width)
        x = self.first(F.Activation(self.norm(x), act_type="relu"))
        return F.sigmoid(self.last(F.Activation(x, act_type="relu")))


class AttentionModule(gluon.HybridBlock):
    """Residual units, and a mask that changes the output y of the trunk to (1 + mask) * y.

    Parameters are those of `Mask`.

    Inputs
    ------
    x : (B, C, H, W) float32

    Outputs
    -------
    (B, C, H, W) float32

    Notes
    -----
    Wang et al., arXiv:1704.06904, equation 3, with one unit before the branches, one unit after
    them (p = 1), and two units in the trunk branch (t = 2).
    """

    def __init__(self, channels: int, size: tuple[int, int], levels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.before = _unit(channels, channels)
            self.trunk = nn.HybridSequential()
            for _ in range(TRUNK_UNITS):
                self.trunk.add(_unit(channels, channels))
            self.mask = Mask(channels, size, levels)
            self.after = _unit(channels, channels)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.before(x)
        return self.after(F.elemwise_mul(self.mask(x) + 1.0, self.trunk(x)))


class AttentionNet(ModeGraphs):
    """Residual Attention Network: a stem with stride 1, three stages of attention, a last stage.

    Parameters
    ----------
    modules
        Number of attention modules in each of the three stages.
    image_size
        (height, width) of the images in pixels, which determines the interpolations of the masks.
    width
        Factor on the number of channels of every layer; the result is rounded to a multiple of 8.
    embedding_size
        Number of dimensions E of the embedding.
    output
        Last layers, a key of `nets.embedding.OUTPUTS`; "GAP" and "GAP_PRELU" have ReLU before the
        pooling.
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
    Wang et al., "Residual Attention Network for Image Classification", arXiv:1704.06904, table 2,
    with the stem of GluonFR's AttentionNetFace for small images.
    """

    def __init__(
        self,
        modules: Sequence[int],
        image_size: tuple[int, int] = (112, 112),
        *,
        width: float = 1.0,
        embedding_size: int = 512,
        output: str = "GAP_PRELU",
        dropout: float = 0.0,
        name: str = "attention",
        **kwargs: Any,
    ) -> None:
        size = check_image_size(name, image_size)
        super().__init__(**kwargs)
        before = scale_channels(STEM_CHANNELS, width)
        with self.name_scope():
            self.stem = ConvNorm(3, before, 3, 1, 1, fused=FUSED)
            self.stages = nn.HybridSequential()
            for index, (count, channels) in enumerate(zip(modules, STAGE_CHANNELS, strict=True)):
                after = scale_channels(channels, width)
                stage = nn.HybridSequential()
                stage.add(_unit(before, after, 2))
                for _ in range(count):
                    inner = feature_size(size, index + 1)
                    stage.add(AttentionModule(after, inner, len(STAGE_CHANNELS) - index))
                self.stages.add(stage)
                before = after
            last = scale_channels(LAST_CHANNELS, width)
            self.last = nn.HybridSequential()
            for index in range(3):
                self.last.add(_unit(last if index else before, last, 1 if index else 2))
            self.embedding = build_output(
                output,
                last,
                embedding_size,
                feature_size(size, len(STAGE_CHANNELS) + 1),
                name=name,
                dropout=dropout,
                activation=ReLU,
            )

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = F.Activation(self.stem(x), act_type="relu")
        return self.embedding(self.last(self.stages(x)))


def _unit(in_channels: int, channels: int, stride: int = 1) -> PreActivationUnit:
    """Create a residual unit with ReLU."""
    project = stride != 1 or in_channels != channels
    return PreActivationUnit(in_channels, channels, stride, project=project, activation=ReLU)


def attention(depth: int) -> Callable[..., gluon.HybridBlock]:
    """Return a function that builds an `AttentionNet`; ``depth`` is a key of ``MODULES``."""
    name = f"attention{depth}"

    def build(
        image_size: tuple[int, int] = (112, 112),
        *,
        width: Width = 1.0,
        embedding_size: EmbeddingSize = 512,
        output: Output = "GAP_PRELU",
        dropout: Dropout = 0.0,
    ) -> AttentionNet:
        return AttentionNet(
            MODULES[depth],
            image_size,
            width=width,
            embedding_size=embedding_size,
            output=output,
            dropout=dropout,
            name=name,
        )

    describe_builder(
        build,
        name,
        f"Residual Attention Network of {depth} layers, as GluonFR's attentionfacenet{depth}.",
        notes='Wang et al., "Residual Attention Network", arXiv:1704.06904.',
    )
    return build
