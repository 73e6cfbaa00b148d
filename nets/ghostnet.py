# SPDX-License-Identifier: Apache-2.0
"""GhostNet: bottlenecks in which cheap depthwise convolutions compute half of the channels."""

from typing import Annotated, Any

from nets.embedding import Dropout, EmbeddingSize, Output, output_problems
from nets.image_size import check_image_size
from nets.trunk import TYPICAL_EMBEDDING_SIZE, Head, TrunkNet, scale_channels, scale_stages
from ranges import Within

Width = Annotated[float, Within(0, 4, "the widths of the paper are 0.5 to 1.3", open_low=True)]
DIVISOR = 4
STEM_CHANNELS = 16
LAST_CHANNELS = 960
# Table 1 of Han et al., "GhostNet", arXiv:1911.11907; there is one list for each resolution.
CHANNELS = ([16], [24, 24], [40, 40], [80, 80, 80, 80, 112, 112], [160, 160, 160, 160, 160])
EXPANDED = ([16], [48, 72], [72, 120], [240, 200, 184, 184, 480, 672], [672, 960, 960, 960, 960])
KERNELS = ([3], [3, 3], [5, 5], [3, 3, 3, 3, 3, 3], [5, 5, 5, 5, 5])
SQUEEZE = ([0], [0, 0], [1, 1], [0, 0, 0, 0, 1, 1], [1, 0, 1, 0, 1])


def ghostnet(
    image_size: tuple[int, int] = (112, 112),
    *,
    width: Width = 1.0,
    embedding_size: EmbeddingSize = TYPICAL_EMBEDDING_SIZE,
    output: Output = "GDC",
    dropout: Dropout = 0.0,
) -> TrunkNet:
    """GhostNet, a network of bottlenecks with few multiply-accumulates.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels.
    width
        Factor on the number of channels of every layer of the trunk; the result is rounded to a
        multiple of 4.
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
    Han et al., "GhostNet", arXiv:1911.11907, table 1. The trunk comes from gluoncv2. The face
    networks GhostFaceNets (Alansari et al., IEEE Access 11, 2023) have this trunk with PReLU.
    """
    size = check_image_size("ghostnet", image_size)

    def make_trunk() -> Any:
        from nets.ghost_module import build_trunk

        return build_trunk(
            size,
            channels=scale_stages(CHANNELS, width, DIVISOR),
            expanded=scale_stages(EXPANDED, width, DIVISOR),
            kernels=KERNELS,
            squeeze=SQUEEZE,
            stem=scale_channels(STEM_CHANNELS, width, DIVISOR),
            last=scale_channels(LAST_CHANNELS, width, DIVISOR),
        )

    return TrunkNet(make_trunk, size, Head("ghostnet", embedding_size, output, dropout))


ghostnet.problems = output_problems  # type: ignore[attr-defined]
