# SPDX-License-Identifier: Apache-2.0
"""Numbers of axes of the values of a graph."""

from __future__ import annotations

import ast
from typing import Any

from interchange.graph import Graph, Node, Output

_IMAGE_RANK = 4
_REDUCTIONS = ("sum", "mean", "mxnet.norm", "mxnet.max", "mxnet.min")


def value_ranks(graph: Graph) -> dict[Output, int]:
    """Return the number of axes of every value of a graph.

    The inputs of the graph are images of shape (B, 3, H, W), where B is the number of images.
    """
    ranks = {Output(name): _IMAGE_RANK for name in graph.inputs}
    for node in graph:
        rank = _rank(node, [ranks[value] for value in node.inputs], graph)
        count = node.attributes["parts"] if node.op == "split" else 1
        ranks.update({Output(node.name, index): rank for index in range(count)})
    return ranks


def _rank(node: Node, inputs: list[int], graph: Graph) -> int:
    if node.op == "constant":
        return int(graph.tensors[node.tensors["value"]].ndim)
    if node.op in ("flatten", "dense"):
        return 2
    if node.op == "reshape":
        return len(node.attributes["shape"])
    if node.op == "expand_dims":
        return inputs[0] + 1
    if node.op == "squeeze" or (node.op == "split" and node.attributes.get("squeeze")):
        return inputs[0] - len(axes_of(node.attributes.get("axis"), inputs[0]))
    if node.op in _REDUCTIONS and not _value(node, "keepdims"):
        return inputs[0] - len(axes_of(_value(node, "axis"), inputs[0]))
    return max(inputs)


def _value(node: Node, name: str) -> Any:
    """Return an attribute of a node; MXNet's own operators have attributes as texts."""
    value = node.attributes.get(name)
    return ast.literal_eval(value) if isinstance(value, str) else value


def axes_of(axis: int | tuple[int, ...] | None, rank: int) -> list[int]:
    """Return the axes that an attribute `axis` names: all if it is None or ()."""
    if axis is None or axis == ():
        return list(range(rank))
    return [one % rank for one in ((axis,) if isinstance(axis, int) else axis)]
