# SPDX-License-Identifier: Apache-2.0
"""Find which of our networks a graph may be, from the numbers of its layers and channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from interchange.structure import weighted_count
from nets.attention import LAST_CHANNELS as ATTENTION_PEAK
from nets.attention import MODULES
from nets.densenet import LAYERS as DENSENETS
from nets.iresnet import STAGE_CHANNELS, UNITS
from nets.mnasnet import STAGES as MNASNET_STAGES
from nets.mobilefacenet import BLOCKS, LAST_CHANNELS, STEM_CHANNELS
from nets.mobilenet_v1 import LAYERS as MOBILENET_LAYERS
from nets.seresnet import LAYERS as SERESNETS
from nets.vargfacenet import LAST_CHANNELS as VARGFACENET_PEAK
from nets.vargfacenet import STAGE_CHANNELS as VARGFACENET_CHANNELS
from nets.vargfacenet import UNITS as VARGFACENET_UNITS

if TYPE_CHECKING:
    from interchange.ending import Ending
    from interchange.graph import Graph

SE_LAYERS = 2
"""Number of convolutions in a squeeze-and-excitation block."""


class Clues(NamedTuple):
    """Numbers of layers and channels in a graph, by which our networks differ."""

    layers: int
    """Number of convolutions and dense layers, without those of the embedding output."""
    stem: int
    """Number of output channels of the first convolution."""
    peak: int
    """Largest number of output channels of a convolution."""
    square: tuple[int, ...]
    """Numbers of output channels of the 3x3 convolutions without groups, in forward order."""
    squeezes: int
    """Number of sigmoid functions: one in each squeeze-and-excitation block or attention module."""
    slopes: int
    """Number of PReLUs."""


class Candidate(NamedTuple):
    """One of our networks, and how to find its arguments."""

    name: str
    layers: int
    """Number of convolutions and dense layers, without those of the embedding output and of
    squeeze-and-excitation blocks."""
    squeezes: tuple[int, ...]
    """Possible numbers of sigmoid functions."""
    stem: int
    """Number of output channels of the first convolution if the setting ``width`` is 1."""
    peak: int
    """Largest number of output channels of a convolution if the setting ``width`` is 1."""
    default_width: float = 1.0
    has_se: bool = False
    """Whether the network has the setting ``se``, which adds squeeze-and-excitation blocks."""

    def fits(self, clues: Clues) -> bool:
        """Return whether ``clues`` has the numbers of layers and of sigmoids of the network."""
        if clues.squeezes not in self.squeezes:
            return False
        return clues.layers == self.layers + (SE_LAYERS * clues.squeezes if self._counts_se else 0)

    @property
    def _counts_se(self) -> bool:
        return self.name.partition("attention")[0] != ""

    def options(self, clues: Clues) -> Iterator[dict[str, Any]]:
        """Yield possible arguments of `nets.build_net`, likely ones first.

        Each dict has the name, the width and ``se``; values equal to the defaults are left out.
        """
        se = {"se": True} if self.has_se and clues.squeezes else {}
        for width in _widths(clues.stem / self.stem, clues.peak / self.peak):
            stated = {} if width == self.default_width else {"width": width}
            yield {"name": self.name, **stated, **se}


def find_clues(graph: Graph, ending: Ending) -> Clues:
    """Count the layers of a graph."""
    convolutions = [node for node in graph if node.op == "conv"]
    channels = [len(graph.tensors[node.tensors["weight"]]) for node in convolutions]
    square = tuple(
        count
        for node, count in zip(convolutions, channels, strict=True)
        if node.attributes["kernel"] == (3, 3) and node.attributes["groups"] == 1
    )
    kinds = [node.op for node in graph]
    return Clues(
        weighted_count(graph) - ending.layers,
        channels[0] if channels else 0,
        max(channels, default=0),
        square,
        kinds.count("sigmoid"),
        kinds.count("prelu"),
    )


def _widths(*ratios: float) -> Iterator[float]:
    """Yield possible values of the setting ``width`` of a network, usual values first.

    Each ratio is a number of channels in a graph, divided by the number that the network has at
    width 1.  A ratio may differ from the width, because networks round their numbers of channels.
    Widths that are rounded to the same numbers of channels define the same network.
    """
    rounded: list[Callable[[float], float]] = [
        lambda ratio: float(round(ratio)),
        lambda ratio: round(ratio, 1),
        lambda ratio: round(8 * ratio) / 8,
        lambda ratio: round(16 * ratio) / 16,
        lambda ratio: round(ratio, 2),
        lambda ratio: round(ratio, 3),
        lambda ratio: round(ratio, 4),
        lambda ratio: ratio,
    ]
    found = (change(ratio) for change in rounded for ratio in ratios)
    yield from (width for width in dict.fromkeys(found) if 0 < width <= 8)


def iresnet_options(clues: Clues) -> Iterator[dict[str, Any]]:
    """Yield arguments of `nets.build_net` for the iresnets that a graph may be."""
    channels = [clues.stem * scale // STAGE_CHANNELS[0] for scale in STAGE_CHANNELS]
    counts = [clues.square.count(count) for count in channels]
    units = [(counts[0] - 1) // 2, *(count // 2 for count in counts[1:])]
    expected = 1 + sum(2 * count + 1 for count in units) + SE_LAYERS * clues.squeezes
    if min(units) < 1 or clues.layers != expected or clues.squeezes not in (0, sum(units)):
        return
    depth = next((depth for depth, known in UNITS.items() if list(known) == units), None)
    unit_one = clues.slopes >= 1 + 2 * sum(units) + clues.squeezes
    net: dict[str, Any] = {"name": f"iresnet{depth or 100}"}
    net |= {} if depth else {"units": units}
    net |= {"unit": 1} if unit_one else {}
    net |= {"se": True} if clues.squeezes else {}
    for width in _widths(clues.stem / STAGE_CHANNELS[0]):
        yield {**net, **({} if width == 1 else {"width": width})}


def _mobilefacenet(name: str, blocks: tuple[int, ...], scale: int = 1) -> Candidate:
    # The number 2 counts the first convolution and the last 1x1 convolution.  Each bottleneck has 3
    # convolutions.
    stem = 1 if blocks[0] == 1 else 3 * blocks[0]
    layers = 2 + stem + 3 * sum(1 + count for count in blocks[1:])
    return Candidate(name, layers, (0,), STEM_CHANNELS * scale, LAST_CHANNELS)


def _attention(depth: int) -> Candidate:
    # An attention module has 4 residual units outside of its mask.  A mask of L levels has
    # `3 * L - 1` units and 2 more convolutions.  A unit has 3 convolutions.
    modules = MODULES[depth]
    levels = [len(modules) - index for index in range(len(modules))]
    units = sum(count * (3 + 3 * level) for count, level in zip(modules, levels, strict=True))
    # Outside of the attention modules are the first unit of each of the three stages with
    # attention, and the three units of the last stage.  The first unit of each of the four stages
    # has one more convolution, the shortcut.
    first = 2 * len(modules)
    layers = 1 + 3 * (units + first) + len(modules) + 1 + 2 * sum(modules)
    return Candidate(
        f"attention{depth}",
        layers,
        (sum(modules),),
        STEM_CHANNELS,
        ATTENTION_PEAK,
    )


def _seresnet(depth: int) -> Candidate:
    units, channels = SERESNETS[depth]
    projected = len(channels) - (channels[0] == STEM_CHANNELS)
    return Candidate(
        f"seresnet{depth}",
        1 + 3 * sum(units) + projected,
        (sum(units),),
        STEM_CHANNELS,
        channels[-1],
    )


def _densenet(depth: int) -> Candidate:
    layers = DENSENETS[depth]
    before, widest = layers.stem, 0
    for index, count in enumerate(layers.blocks):
        if index:
            before //= 2
            widest = before
        before += count * layers.growth
    count = 1 + 2 * sum(layers.blocks) + len(layers.blocks) - 1
    return Candidate(f"densenet{depth}", count, (0,), layers.stem, widest)


def _vargfacenet() -> Candidate:
    units = sum(VARGFACENET_UNITS)
    plain = units - len(VARGFACENET_UNITS)
    # The terms of the sum are the numbers of layers in: the first convolution, the unit of the
    # stem, the units with two branches, the other units, the last layers.
    layers = 1 + 6 + 8 * len(VARGFACENET_UNITS) + 4 * plain + 3
    stem = VARGFACENET_CHANNELS[0]
    return Candidate(
        "vargfacenet",
        layers,
        (0, plain + 1),
        stem,
        VARGFACENET_PEAK,
        default_width=1.25,
        has_se=True,
    )


CANDIDATES = (
    _mobilefacenet("mobilefacenet", BLOCKS),
    _mobilefacenet("mobilefacenet", BLOCKS)._replace(
        name="gluonfr_mobilefacenet", squeezes=(sum(1 + n for n in BLOCKS[1:]),)
    ),
    _mobilefacenet("mobilefacenet_y2", (2, 8, 16, 4)),
    _mobilefacenet("mbf", BLOCKS, 2),
    _mobilefacenet("mbf_large", (2, 8, 12, 4), 4),
    Candidate("mobilenet_v1", 1 + 2 * len(MOBILENET_LAYERS), (0,), 32, 1024),
    Candidate("mnasnet", 4 + 3 * sum(s.blocks for s in MNASNET_STAGES), (0,), 32, 1152),
    *map(_densenet, DENSENETS),
    _vargfacenet(),
    *map(_seresnet, SERESNETS),
    *map(_attention, MODULES),
)
"""Networks that a graph may be, apart from the iresnets.

For the iresnets, `iresnet_options` finds the arguments."""
