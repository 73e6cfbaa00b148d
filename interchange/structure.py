# SPDX-License-Identifier: Apache-2.0
"""Structure of a graph: nodes that do not change the function, and digests to compare graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from interchange.graph import Graph, Node, Output

TRANSPARENT = ("dropout", "identity", "flatten")
"""Operations that in inference return their input, possibly in another shape."""
COMMUTATIVE = ("add", "multiply", "maximum", "minimum")
WEIGHTED = ("conv", "dense")
IGNORED = ("momentum", "epsilon", "fixed_scale", "broadcast", "rate")
"""Attributes that may differ between matching operations.

For each of them, either `interchange.matching` compensates for the difference, or inference does
not use the attribute."""


class Structure(NamedTuple):
    """Depth of a value in a graph, and a digest of the operations that compute the value."""

    depth: int
    digest: str


def is_transparent(node: Node) -> bool:
    """Return whether a node is transparent: comparisons of structures ignore it."""
    # These are the reshapes from (B, C) to (B, C, 1, 1) and from (B, C, H, W) to (B, C * H * W).
    shapes = ((0, -1, 1, 1), (0, -1))
    return node.op in TRANSPARENT or (
        node.op == "reshape" and tuple(node.attributes["shape"]) in shapes
    )


def see_through(nodes: Mapping[str, Node], value: Output) -> Output:
    """Follow ``value`` back through transparent nodes; return the value that enters them."""
    while value.node in nodes and is_transparent(nodes[value.node]):
        value = nodes[value.node].inputs[0]
    return value


def compared_attributes(node: Node) -> dict[str, Any]:
    """Return the attributes that must agree for two operations to count as equal."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in sorted(node.attributes.items())
        if name not in IGNORED
    }


def structures(graph: Graph) -> dict[Output, Structure]:
    """Return the structure of each value of a graph.

    Batch normalisations, biases and transparent nodes do not count, so a graph whose batch
    normalisations are folded into its convolutions has the same structure as the original.
    """
    found = {Output(name): Structure(0, "input") for name in graph.inputs}
    for node in graph:
        before = [found[value] for value in node.inputs]
        if is_transparent(node) or node.op == "batch_norm":
            found[Output(node.name)] = before[0]
            continue
        parts = [node.op, repr(compared_attributes(node))]
        if "weight" in node.tensors:
            parts.append(repr(graph.tensors[node.tensors["weight"]].shape))
        digests = [each.digest for each in before]
        parts += sorted(digests) if node.op in COMMUTATIVE else digests
        digest = hashlib.sha256("|".join(parts).encode()).hexdigest()
        depth = 1 + max((each.depth for each in before), default=0)
        for index in range(node.attributes.get("parts", 1)):
            found[Output(node.name, index)] = Structure(depth, f"{digest}{index or ''}")
    return found


def weighted_count(graph: Graph) -> int:
    """Return the number of convolutions and dense layers of a graph."""
    return sum(node.op in WEIGHTED for node in graph)
