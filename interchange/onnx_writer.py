# SPDX-License-Identifier: Apache-2.0
"""Collection of the nodes and initializers of an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from interchange.graph import Graph, Node, Output
from interchange.ranks import value_ranks


class NodeWriter:
    """Collector of the ONNX nodes and initializers that stand for the nodes of a graph.

    Parameters
    ----------
    graph
        Graph whose nodes are translated, in their order.
    reserved
        Names of ONNX values that no node of the graph may receive.
    """

    def __init__(self, graph: Graph, reserved: Iterable[str] = ()) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self._graph = graph
        self._ranks = value_ranks(graph)
        self._values: dict[Output, str] = {}
        self._names = set(reserved)

    def value(self, output: Output) -> str:
        """Return the name of the ONNX value of an output or input of the graph."""
        return self._values[output]

    def inputs(self, node: Node) -> list[str]:
        """Return the names of the ONNX values of all inputs of a node."""
        return [self.value(output) for output in node.inputs]

    def rank(self, output: Output) -> int:
        """Return the number of axes of a value."""
        return self._ranks[output]

    def tensor(self, node: Node, role: str) -> np.ndarray:
        """Return a parameter of a node as float32."""
        return np.asarray(self._graph.tensors[node.tensors[role]], np.float32)

    def initializer(self, name: str, array: Any) -> str:
        """Store a constant under ``name``, and return the name of the constant.

        If ``name`` is in use already, a number is appended.
        """
        chosen = self._unique(name)
        # np.ascontiguousarray would turn a scalar into an array with one axis.
        self.initializers[chosen] = numpy_helper.from_array(np.asarray(array, order="C"), chosen)
        return chosen

    def number(self, name: str, value: float) -> str:
        """Store a float32 scalar; return its name."""
        return self.initializer(name, np.array(value, np.float32))

    def integers(self, name: str, values: Iterable[int]) -> str:
        """Store a list of int64 numbers; return its name."""
        return self.initializer(name, np.array(list(values), np.int64))

    def parameter(self, node: Node, role: str, array: np.ndarray | None = None) -> str:
        """Store a parameter of a node under the name of its tensor; return the name.

        Nodes that share a tensor share the initializer.
        """
        name = node.tensors[role]
        value = self.tensor(node, role) if array is None else array
        stored = self.initializers.get(name)
        if stored is not None and np.array_equal(numpy_helper.to_array(stored), value):
            return name
        return self.initializer(name, value)

    def emit(
        self, op_type: str, inputs: Iterable[str], name: str, *, outputs: int = 1, **attributes: Any
    ) -> list[str]:
        """Append an ONNX node and return the names of its outputs."""
        name = self._unique(name)
        names = [name] if outputs == 1 else [self._unique(f"{name}_{i}") for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name, **attributes))
        return names

    def step(
        self, node: Node, suffix: str, op_type: str, inputs: Iterable[str], **attributes: Any
    ) -> str:
        """Append an ONNX node that computes part of a graph node; return the name of its output."""
        return self.emit(op_type, inputs, f"{node.name}_{suffix}", **attributes)[0]

    def finish(self, node: Node, op_type: str, inputs: Iterable[str], **attributes: Any) -> None:
        """Append the ONNX node that computes the output of the graph node."""
        self.assign(node.name, self.emit(op_type, inputs, node.name, **attributes))

    def assign(self, name: str, values: Sequence[str]) -> None:
        """Record ONNX values as the outputs of the graph node or graph input named ``name``."""
        for index, value in enumerate(values):
            self._values[Output(name, index)] = value

    def _unique(self, name: str) -> str:
        chosen, number = name, 1
        while chosen in self._names:
            chosen, number = f"{name}_{number}", number + 1
        self._names.add(chosen)
        return chosen
