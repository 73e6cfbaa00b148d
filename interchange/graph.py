# SPDX-License-Identifier: Apache-2.0
"""Computation graph of a network, independent of the file format that it comes from.

The table lists the operations.  A value has the shape (B, C, H, W) or (B, C), where B is the number
of images and C the number of channels.  Pairs are (height, width).  A tensor or an attribute in
brackets is optional.

===============  ======================================  ==========================================
operation        tensors and their shapes                attributes
===============  ======================================  ==========================================
conv             weight (O, C / groups, h, w), [bias]    kernel, stride, padding, dilation: pairs;
                                                         groups
batch_norm       gamma, beta, running_mean,              epsilon, momentum, fixed_scale (whether
                 running_var: (C,) each                  gamma is 1 and training keeps it at 1)
dense            weight (O, features), [bias]            none; the input is flattened to (B, -1)
prelu            slope (C,)                              none
leaky_relu, elu                                          slope: number
relu, sigmoid, tanh, softplus, softsign, gelu, exp, square, sqrt, absolute: no attributes
hard_sigmoid                                             alpha, beta: min(max(alpha x + beta, 0), 1)
clip                                                     low, high
softmax                                                  axis
affine                                                   scale, shift: numbers, or tuples with one
                                                         number per channel; scale * x + shift
pool                                                     kind: "max" or "average"; kernel, stride,
                                                         padding: pairs; ceil_mode; include_padding
global_pool                                              kind: "max", "average" or "sum"; the
                                                         output is (B, C, 1, 1)
add, multiply, subtract, divide, maximum, minimum        broadcast (whether the shapes may differ)
concat                                                   axis
split                                                    axis, parts (number of outputs), squeeze
                                                         (whether the outputs lack the axis)
slice                                                    axis, begin, end (None: to the end)
flatten                                                  none; the output is (B, C * H * W)
reshape                                                  shape; 0 copies a dimension, -1 infers it
transpose                                                axes
squeeze, expand_dims                                     axis
sum, mean                                                axis (None, number or tuple), keepdims
tile                                                     repeats
l2_normalize                                             over: "instance" (all axes but 0),
                                                         "channel" (axis 1) or "spatial" (2 and 3);
                                                         epsilon
dropout                                                  rate
identity                                                 none
constant         value                                   none; no inputs
mxnet.<Name>                                             an MXNet operator outside of this table,
                                                         with MXNet's attributes as texts
===============  ======================================  ==========================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Output(NamedTuple):
    """One output of a node, or an input of the graph."""

    node: str
    """Name of the node or of the input of the graph."""
    index: int = 0  # type: ignore[assignment]  # hides tuple.index, which nothing uses
    """Number of the output, counted from 0."""


@dataclass(frozen=True)
class Node:
    """One operation of a graph."""

    name: str
    op: str
    """Name of the operation, for example "conv", "batch_norm", "prelu", "dense" or "add"."""
    inputs: tuple[Output, ...]
    """Values that other nodes, or the inputs of the graph, pass to this operation."""
    tensors: Mapping[str, str] = field(default_factory=dict)
    """Mapping from the role of a parameter, for example "weight" or "running_mean", to the name of
    its tensor."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the operation, for example "stride": (2, 2)."""


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order and the tensors that they use.

    Inputs and outputs are images and embeddings: a graph takes (B, 3, H, W) float32 and returns
    (B, E) float32, where B is the number of images and E the number of dimensions of an embedding.
    """

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    tensors: Mapping[str, np.ndarray]
    image_size: tuple[int, int] | None = None
    """(height, width) of the images in pixels; None if the source does not state the size."""

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def by_name(self) -> dict[str, Node]:
        """Return the nodes, keyed by name."""
        return {node.name: node for node in self.nodes}

    def consumers(self) -> dict[Output, list[Node]]:
        """Return the nodes that use each value; a value without consumers has no entry."""
        found: dict[Output, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                found.setdefault(value, []).append(node)
        return found

    def pruned(self) -> Graph:
        """Return the graph without the nodes and tensors that the outputs do not depend on."""
        needed = {output.node for output in self.outputs}
        nodes = []
        for node in reversed(self.nodes):
            if node.name in needed:
                nodes.append(node)
                needed |= {value.node for value in node.inputs}
        used = {name for node in nodes for name in node.tensors.values()}
        tensors = {name: array for name, array in self.tensors.items() if name in used}
        return replace(self, nodes=tuple(reversed(nodes)), tensors=tensors)

    def without(self, removed: Callable[[Node], bool]) -> Graph:
        """Return the graph without some nodes.

        The consumers of a removed node use the first input of that node instead.
        """
        passed: dict[Output, Output] = {}
        nodes = []
        for node in self.nodes:
            inputs = tuple(passed.get(value, value) for value in node.inputs)
            if inputs and removed(node):
                passed[Output(node.name)] = inputs[0]
            else:
                nodes.append(replace(node, inputs=inputs))
        outputs = tuple(passed.get(value, value) for value in self.outputs)
        return replace(self, nodes=tuple(nodes), outputs=outputs).pruned()
