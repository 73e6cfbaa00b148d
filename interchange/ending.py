# SPDX-License-Identifier: Apache-2.0
"""Recognise the last layers of a graph as an embedding output such as "GDC", with its sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from interchange.structure import WEIGHTED, is_transparent

if TYPE_CHECKING:
    from interchange.graph import Graph, Node, Output


class Ending(NamedTuple):
    """Last layers of a graph."""

    outputs: tuple[str, ...]
    """Embedding outputs that the graph may end with, likely ones first: keys of
    `nets.embedding.OUTPUTS`."""
    embedding_size: int | None
    """Number of dimensions of the embedding; None if no weight states it, as for the output "Z"."""
    features: int
    """Number of inputs of the last dense layer; 0 if there is none."""
    layers: int
    """Number of convolutions and dense layers that belong to the embedding output."""


def find_ending(graph: Graph) -> Ending | None:
    """Read the last layers of a graph; return None if it has only normalisations and PReLUs."""
    steps = _main_path(graph)
    norm, activated = False, False
    last = next(steps, None)
    while last is not None and last.op in ("batch_norm", "l2_normalize", "prelu"):
        norm, activated = norm or last.op == "batch_norm", activated or last.op == "prelu"
        last = next(steps, None)
    if last is None:
        return None
    if last.op == "global_pool":
        layer = _next_weighted(graph, steps)
        return Ending(("GNAP",), None if layer is None else _count(graph, layer), 0, 0)
    if last.op != "dense":
        return Ending(("Z",), None, 0, 0)
    size, features = graph.tensors[last.tensors["weight"]].shape
    before = next(steps, None)
    norm_before = before is not None and before.op == "batch_norm"
    while before is not None and before.op == "batch_norm":
        before = next(steps, None)
    if before is not None and before.op == "global_pool":
        weighted = next(steps, None)
        if weighted is not None and weighted.op == "multiply":
            return Ending(("GNAP",), size, features, 1)
        return Ending(("GAP_PRELU",) if activated else ("GAP",), size, features, 1)
    if before is not None and _is_global(before):
        return Ending(("GDC",), size, features, 2)
    flat = {(True, True): "E", (True, False): "J", (False, True): "G"}.get((norm, norm_before), "G")
    return Ending(tuple(dict.fromkeys(("E", flat, "J", "G"))), size, features, 1)


def pool_kernel(graph: Graph) -> tuple[int, int] | None:
    """Return the kernel size of the last convolution that `_is_global` accepts, or None."""
    found = [node.attributes["kernel"] for node in graph if _is_global(node)]
    return found[-1] if found else None


def with_dense_ending(graph: Graph) -> Graph:
    """Replace a 1x1 convolution of a single pixel at the end of a graph by a dense layer.

    GluonFR's MobileFaceNet computes the embedding with such a convolution.  A graph without it is
    returned as it is.
    """
    steps = _main_path(graph)
    last = next((node for node in steps if node.op not in ("batch_norm", "l2_normalize")), None)
    before = next((node for node in steps if node.op != "batch_norm"), None)
    if last is None or before is None or last.op != "conv" or not _is_global(before):
        return graph
    weight = last.tensors["weight"]
    count = sum(weight in node.tensors.values() for node in graph)
    if last.attributes["kernel"] != (1, 1) or last.attributes["groups"] != 1 or count != 1:
        return graph
    dense = replace(last, op="dense", attributes={})
    flat = graph.tensors[weight].reshape(len(graph.tensors[weight]), -1)
    return replace(
        graph,
        nodes=tuple(dense if node is last else node for node in graph),
        tensors={**graph.tensors, weight: flat},
    )


def _main_path(graph: Graph) -> Iterator[Node]:
    """Yield nodes from the output towards the input, along the first input of each node.

    Nodes that change no value in inference are left out.
    """
    nodes: dict[str, Any] = graph.by_name()
    value: Output = graph.outputs[0]
    while value.node in nodes:
        node = nodes[value.node]
        if not is_transparent(node):
            yield node
        if not node.inputs:
            return
        value = node.inputs[0]


def _next_weighted(graph: Graph, steps: Iterator[Node]) -> Node | None:
    return next((node for node in steps if node.op in WEIGHTED), None)


def _count(graph: Graph, node: Node) -> int:
    return len(graph.tensors[node.tensors["weight"]])


def _is_global(node: Node) -> bool:
    """Return whether a node is a grouped convolution without padding.

    In our networks, the kernel of such a convolution covers the whole feature map, so the output is
    one pixel.
    """
    return (
        node.op == "conv" and node.attributes["groups"] > 1 and node.attributes["padding"] == (0, 0)
    )
