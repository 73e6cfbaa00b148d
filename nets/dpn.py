# SPDX-License-Identifier: Apache-2.0
"""Dual path networks: each unit adds a part of its output to its input and appends the rest."""

from collections.abc import Callable
from typing import Any, NamedTuple

from nets.embedding import Dropout, EmbeddingSize, Output, output_problems
from nets.image_size import check_image_size
from nets.trunk import TYPICAL_EMBEDDING_SIZE, Head, TrunkNet

EPSILON = 1e-3
"""Number added to the variance in batch normalisation, as in the authors' code."""
RESIDUAL_CHANNELS = 64


class Settings(NamedTuple):
    """Numbers of one network in table 1 of Chen et al., "Dual Path Networks", arXiv:1707.01629."""

    stem: int
    """Number of output channels of the first convolution."""
    kernel: int
    """Size of the kernel of the first convolution in pixels."""
    factor: int
    """Number of residual channels in the first stage, divided by 64."""
    bottleneck: int
    """Number of channels of the 3x3 convolutions in the first stage."""
    groups: int
    """Number of groups of the 3x3 convolutions."""
    units: tuple[int, int, int, int]
    """Number of units in each stage."""
    increments: tuple[int, int, int, int]
    """Number of channels that each unit of a stage appends."""


SETTINGS = {
    68: Settings(10, 3, 1, 128, 32, (3, 4, 12, 3), (16, 32, 32, 64)),
    92: Settings(64, 7, 4, 96, 32, (3, 4, 20, 3), (16, 32, 24, 128)),
    107: Settings(128, 7, 4, 200, 50, (4, 8, 20, 3), (20, 64, 64, 128)),
    131: Settings(128, 7, 4, 160, 40, (4, 8, 28, 3), (16, 32, 32, 128)),
}
"""Mapping from the number of layers to the settings of the network."""


def dpn(depth: int) -> Callable[..., TrunkNet]:
    """Return a function that builds the dual path network with a given number of layers.

    Parameters
    ----------
    depth
        Number of layers as in the name of the network: a key of ``SETTINGS``.
    """
    name = f"dpn{depth}"

    def build(
        image_size: tuple[int, int] = (112, 112),
        *,
        embedding_size: EmbeddingSize = TYPICAL_EMBEDDING_SIZE,
        output: Output = "E",
        dropout: Dropout = 0.0,
    ) -> TrunkNet:
        size = check_image_size(name, image_size)
        head = Head(name, embedding_size, output, dropout)
        return TrunkNet(lambda: _make_trunk(SETTINGS[depth]), size, head, epsilon=EPSILON)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""DPN-{depth}, a dual path network of {depth} layers.

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
    Chen et al., "Dual Path Networks", arXiv:1707.01629, table 1. The trunk comes from gluoncv2.
    """
    build.problems = output_problems  # type: ignore[attr-defined]
    return build


def _make_trunk(settings: Settings) -> Any:
    from gluoncv2.models.dpn import DPN

    stages = range(len(settings.units))
    residual = [RESIDUAL_CHANNELS * settings.factor << stage for stage in stages]
    channels = [
        [residual[stage] + (3 + unit) * settings.increments[stage] for unit in range(count)]
        for stage, count in enumerate(settings.units)
    ]
    return DPN(
        channels=channels,
        init_block_channels=settings.stem,
        init_block_kernel_size=settings.kernel,
        init_block_padding=settings.kernel // 2,
        rs=[settings.bottleneck << stage for stage in stages],
        bws=residual,
        incs=settings.increments,
        groups=settings.groups,
        b_case=False,
        for_training=True,
        test_time_pool=False,
    ).features
