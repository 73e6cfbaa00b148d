# SPDX-License-Identifier: Apache-2.0
"""Recognise which of our networks a graph is, from its structure and the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from interchange.matching import Match, match_graphs
from interchange.model import InterchangeError
from interchange.net_graph import net_graph
from interchange.structure import WEIGHTED, is_transparent, structures, weighted_count
from nets import build_net, mobilefacenet
from nets.image_size import HALVINGS
from nets.iresnet import UNITS

if TYPE_CHECKING:
    from interchange.graph import Graph, Output

USUAL_IMAGE_SIZE = (112, 112)


@dataclass(frozen=True)
class Recognised:
    """One of our networks with the weights of a graph."""

    net: dict[str, Any]
    """Arguments of `nets.build_net` without the image size."""
    image_size: tuple[int, int]
    """(height, width) of the images in pixels."""
    match: Match


class Ending(NamedTuple):
    """Last layers of a graph."""

    embedding_size: int
    channels: int
    """Number of channels of the last feature map."""
    feature_size: tuple[int, int] | None
    """(height, width) of the last feature map in pixels; None if the graph does not determine it,
    because the product of both does not state the sides."""


class Candidate(NamedTuple):
    """One of our networks, and how to find its arguments."""

    name: str
    layers: int
    """Number of convolutions and dense layers."""
    options: Callable[[Ending], Iterator[dict[str, Any]]]
    """Function that returns the possible keyword arguments of the network, likely ones first."""


def _no_options(ending: Ending) -> Iterator[dict[str, Any]]:
    yield {}


def _widths(ending: Ending) -> Iterator[dict[str, Any]]:
    """Yield widths of MobileFaceNet that give ``ending.channels`` channels, usual widths first.

    Two widths with the same numbers of channels in all layers give the same network.
    """
    exact = ending.channels / mobilefacenet.LAST_CHANNELS
    usual = (round(exact), round(exact, 1), round(8 * exact) / 8, round(16 * exact) / 16)
    tried = []
    for width in (*usual, round(exact, 2), round(exact, 3), round(exact, 4), exact):
        scaled = mobilefacenet.scale_channels(mobilefacenet.LAST_CHANNELS, width or exact)
        if scaled == ending.channels and 0 < width <= 8 and width not in tried:
            tried.append(width)
            yield {} if width == 1 else {"width": float(width)}


_IRESNETS = tuple(
    # Each stage has two convolutions for each unit and one for the shortcut of its first unit.
    Candidate(f"iresnet{depth}", 2 + sum(2 * count + 1 for count in units), _no_options)
    for depth, units in UNITS.items()
)
CANDIDATES = (
    # The stem has two convolutions, each bottleneck three; three layers follow the stages.
    Candidate("mobilefacenet", 5 + sum(3 * (1 + s[3]) for s in mobilefacenet.STAGES), _widths),
    *_IRESNETS,
)


def recognise(graph: Graph, where: str, image_size: tuple[int, int] | None = None) -> Recognised:
    """Find which of our networks, with which arguments, computes the same function as a graph.

    Parameters
    ----------
    graph
        Graph whose input is normalised as our networks need it.
    where
        Path of the file of the graph, for error messages.
    image_size
        (height, width) of the images in pixels; None for the size that the graph states.  If the
        graph states none, the size is 16 times that of the last feature map.

    Raises
    ------
    InterchangeError
        If the graph is none of our networks.  The message names the first layer that differs from
        the nearest of our networks.
    """
    ending = find_ending(graph)
    if ending is None:
        raise InterchangeError(
            f"{where}: is none of our networks, got a graph that does not end with a dense layer; "
            "use the weights of one of our networks"
        )
    size = image_size or graph.image_size or _image_size(ending)
    output = structures(graph)[_output(graph)]
    count = weighted_count(graph)
    for candidate in CANDIDATES:
        if candidate.layers != count:
            continue
        for options in candidate.options(ending):
            net = {"name": candidate.name, **options, "embedding_size": ending.embedding_size}
            ours = _candidate_graph(candidate.name, tuple(sorted(net.items())), size)
            if structures(ours)[ours.outputs[0]].digest == output.digest:
                return Recognised(net, size, match_graphs(ours, graph, where))
    raise _unrecognised(graph, where, ending, size)


def _unrecognised(
    graph: Graph, where: str, ending: Ending, size: tuple[int, int]
) -> InterchangeError:
    """Return an error with the first difference from our network of the same layer count."""
    count = weighted_count(graph)
    for nearest in CANDIDATES:
        if nearest.layers == count:
            break
    else:
        known = ", ".join(f"{each.name} ({each.layers})" for each in CANDIDATES)
        return InterchangeError(
            f"{where}: is none of our networks, got {count} convolutions and dense layers, but our "
            f"networks have: {known}; use the weights of one of these"
        )
    options = next(nearest.options(ending), {})
    net = {"name": nearest.name, **options, "embedding_size": ending.embedding_size}
    try:
        match_graphs(_candidate_graph(nearest.name, tuple(sorted(net.items())), size), graph, where)
    except InterchangeError as error:
        return InterchangeError(f"{error} (compared with our {nearest.name})")
    raise AssertionError(f"{where}: the graph matches {net}, but the digests differ")


@lru_cache(maxsize=16)
def _candidate_graph(
    name: str, net: tuple[tuple[str, Any], ...], image_size: tuple[int, int]
) -> Graph:
    try:
        return net_graph(build_net(image_size=image_size, **dict(net)), image_size)
    except ValueError as error:
        raise InterchangeError(str(error)) from None


def _output(graph: Graph) -> Output:
    """Return the embedding of a graph, before a normalisation to L2 norm 1."""
    nodes = graph.by_name()
    value = graph.outputs[0]
    while value.node in nodes and (
        is_transparent(nodes[value.node]) or nodes[value.node].op == "l2_normalize"
    ):
        value = nodes[value.node].inputs[0]
    return value


def find_ending(graph: Graph) -> Ending | None:
    """Read the sizes of the last layers; return None if no dense layer computes the embedding."""
    nodes = graph.by_name()

    def above(value: Output) -> Any:
        while value.node in nodes:
            node = nodes[value.node]
            if not (is_transparent(node) or node.op in ("batch_norm", "l2_normalize", "prelu")):
                return node
            value = node.inputs[0]
        return None

    last = above(graph.outputs[0])
    if last is None or last.op not in WEIGHTED:
        return None
    size, features = len(_weight(graph, last)), math.prod(_weight(graph, last).shape[1:])
    before = above(last.inputs[0])
    while before is not None and before.op not in WEIGHTED:
        before = nodes.get(before.inputs[0].node) if before.inputs else None
    if before is None:
        return None
    channels = len(_weight(graph, before))
    if features == channels and before.op == "conv":
        return Ending(size, channels, before.attributes["kernel"])
    side = math.isqrt(features // channels)
    return Ending(size, channels, (side, side) if side**2 * channels == features else None)


def _weight(graph: Graph, node: Any) -> Any:
    return graph.tensors[node.tensors["weight"]]


def _image_size(ending: Ending) -> tuple[int, int]:
    if ending.feature_size is None:
        return USUAL_IMAGE_SIZE
    height, width = ending.feature_size
    return height * 2**HALVINGS, width * 2**HALVINGS
