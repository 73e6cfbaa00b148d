# SPDX-License-Identifier: Apache-2.0
"""Recognise which of our networks a graph is, from its structure and the shapes of its tensors."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from interchange.candidates import CANDIDATES, find_clues, iresnet_options
from interchange.ending import Ending, find_ending, pool_kernel, with_dense_ending
from interchange.matching import Match, match_graphs
from interchange.model import InterchangeError
from interchange.net_graph import net_graph
from interchange.structure import is_transparent, structures
from nets import ALIASES, NETS, build_net
from nets.embedding import MAX_EMBEDDING_SIZE
from nets.image_size import HALVINGS, feature_size
from ranges import settings

if TYPE_CHECKING:
    from interchange.graph import Graph, Output

USUAL_IMAGE_SIZE = (112, 112)
_NAMES = [name for name in NETS if name not in ALIASES]


@dataclass(frozen=True)
class Recognised:
    """One of our networks with the weights of a graph."""

    net: dict[str, Any]
    """Arguments of `nets.build_net` without the image size."""
    image_size: tuple[int, int]
    """(height, width) of the images in pixels."""
    match: Match


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
        graph states none, the size is 16 times that of the last feature map, or 112x112 if the
        feature map is unknown.

    Raises
    ------
    InterchangeError
        If the graph is neither an iresnet nor one of `interchange.candidates.CANDIDATES`.  If one
        of these networks is similar, the message names the first layer that differs.
    """
    graph = with_dense_ending(graph)
    ending = find_ending(graph)
    if ending is None:
        raise InterchangeError(
            f"{where}: is none of our networks, got a graph without an embedding output; use the "
            "weights of one of our networks"
        )
    stated = image_size or graph.image_size
    output = structures(graph)[_output(graph)]
    found: list[Recognised] = []
    for net in _candidates(graph, ending):
        size = stated or _image_size(graph, ending, net)
        full = _with_embedding_size(net, ending, size)
        if full is None:
            continue
        ours = _candidate_graph(json.dumps(full), size)
        if structures(ours)[ours.outputs[0]].digest != output.digest:
            continue
        try:
            found.append(Recognised(full, size, match_graphs(ours, graph, where)))
        except InterchangeError:
            # Try the next candidate: one with other batch normalisations in its embedding output
            # may fit.
            continue
        if not found[-1].match.unfolded:
            return found[-1]
    if found:
        return found[0]
    raise _unrecognised(graph, where, ending, stated)


def _candidates(graph: Graph, ending: Ending) -> Iterator[dict[str, Any]]:
    """Yield arguments, without the embedding size, of the networks that a graph may be."""
    clues = find_clues(graph, ending)
    fitting = (each.options(clues) for each in CANDIDATES if each.fits(clues))
    for net in itertools.chain(iresnet_options(clues), *fitting):
        default = settings(NETS[net["name"]])["output"].default
        for output in ending.outputs:
            yield net if output == default else {**net, "output": output}


def _with_embedding_size(
    net: dict[str, Any], ending: Ending, size: tuple[int, int]
) -> dict[str, Any] | None:
    """Add the embedding size to ``net``; return None if the size would exceed its upper bound."""
    if ending.embedding_size is not None:
        return {**net, "embedding_size": ending.embedding_size}
    probe = _candidate_graph(json.dumps({**net, "output": "G", "embedding_size": 1}), size)
    features = find_ending(probe)
    assert features is not None
    if features.features > MAX_EMBEDDING_SIZE:
        return None
    return {**net, "embedding_size": features.features}


def _unrecognised(
    graph: Graph, where: str, ending: Ending, stated: tuple[int, int] | None
) -> InterchangeError:
    """Return an error that names the first difference between the graph and one of our networks.

    If possible, that network has the same numbers of layers and channels as the graph.
    """
    clues, errors = find_clues(graph, ending), []
    for net in _candidates(graph, ending):
        size = stated or _image_size(graph, ending, net)
        full = _with_embedding_size(net, ending, size) or net
        ours = _candidate_graph(json.dumps(full), size)
        try:
            match_graphs(ours, graph, where)
        except InterchangeError as error:
            errors.append(InterchangeError(f"{error} (compared with our {net['name']})"))
            if find_clues(ours, ending)[:3] == clues[:3]:
                return errors[-1]
    if errors:
        return errors[0]
    return InterchangeError(
        f"{where}: is none of our networks, got {clues.layers} convolutions and dense layers "
        f"before the embedding output; use the weights of one of these: {', '.join(_NAMES)}"
    )


@lru_cache(maxsize=16)
def _candidate_graph(net: str, image_size: tuple[int, int]) -> Graph:
    try:
        return net_graph(build_net(image_size=image_size, **json.loads(net)), image_size)
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


def _image_size(graph: Graph, ending: Ending, net: dict[str, Any]) -> tuple[int, int]:
    """Return the image size that fits the last feature map; 112x112 if this map is unknown."""
    kernel = pool_kernel(graph)
    if kernel is not None:
        height, width = kernel
        return height * 2**HALVINGS, width * 2**HALVINGS
    if ending.outputs[0] != "E":
        return USUAL_IMAGE_SIZE
    probe = find_ending(
        _candidate_graph(json.dumps({**net, "embedding_size": 1}), USUAL_IMAGE_SIZE)
    )
    assert probe is not None
    halved = feature_size(USUAL_IMAGE_SIZE)
    channels = probe.features // math.prod(halved)
    side = math.isqrt(ending.features // max(channels, 1))
    if not side or side**2 * channels != ending.features:
        return USUAL_IMAGE_SIZE
    return side * 2**HALVINGS, side * 2**HALVINGS
