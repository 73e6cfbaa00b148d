# SPDX-License-Identifier: Apache-2.0
"""State while reading an ONNX graph: constants, shapes and the `Graph` nodes converted so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, helper

from interchange.graph import Graph, Node, Output
from interchange.model import InterchangeError
from interchange.onnx_file import network_input, opset_version, tensor_array
from interchange.onnx_shape_inference import ShapeInference

if TYPE_CHECKING:
    from collections.abc import Iterable


class GraphReader:
    """Builder of a `Graph` from the nodes of an ONNX model.

    Parameters
    ----------
    model
        Model from `interchange.onnx_file.load_onnx`.
    path
        Path of the file, for error messages.
    image_size
        (height, width) of the images in pixels.
    """

    def __init__(self, model: ModelProto, path: str | Path, image_size: tuple[int, int]) -> None:
        self.path = path
        self.opset = opset_version(model)
        self.input = network_input(model, path).name
        self.constants: dict[str, np.ndarray] = {
            tensor.name: tensor_array(tensor, path) for tensor in model.graph.initializer
        }
        self.uses = Counter(name for node in model.graph.node for name in node.input)
        self.uses.update(value.name for value in model.graph.output)
        self._shapes = ShapeInference(model, self.input, image_size)
        self.nodes: list[Node] = []
        self.tensors: dict[str, np.ndarray] = {}
        self._values = {self.input: Output(self.input)}
        self._names = {self.input}

    def graph(self, output: str, image_size: tuple[int, int]) -> Graph:
        """Return the graph whose output is the ONNX value ``output``."""
        if output not in self._values:
            raise InterchangeError(
                f"{self.path}: the output {output!r} must depend on the images, got a constant; "
                "export the network again"
            )
        return Graph(
            inputs=(self.input,),
            nodes=tuple(self.nodes),
            outputs=(self._values[output],),
            tensors=self.tensors,
            image_size=image_size,
        ).pruned()

    def refuse(self, node: NodeProto, what: str, found: object) -> InterchangeError:
        """Return an error about one ONNX node."""
        return InterchangeError(
            f"{self.path}: node {describe(node)}: {what}, got {found}; export the network with "
            "other operators"
        )

    def is_constant(self, name: str) -> bool:
        """Return whether an ONNX value is a constant."""
        return name in self.constants

    def constant(self, node: NodeProto, index: int, default: Any = None) -> Any:
        """Return the constant value of a node's input; the default if the node lacks this input."""
        name = node.input[index] if index < len(node.input) else ""
        if not name:
            return default
        if name not in self.constants:
            raise self.refuse(node, f"input {index} must be a constant", f"the value {name!r}")
        return self.constants[name]

    def value(self, node: NodeProto, index: int = 0) -> Output:
        """Return the value of an input of an ONNX node; a constant becomes a node."""
        name = node.input[index]
        if name in self.constants and name not in self._values:
            array = self.constants[name]
            if array.dtype == object or name in self.tensors:
                raise self.refuse(
                    node,
                    f"input {index} must be numbers, and no weight of another node",
                    f"the constant {name!r}",
                )
            self.tensors[name] = array.astype(np.float32)
            self._values[name] = self._append(f"{name}:constant", "constant", (), {"value": name})
        return self._values[name]

    def tensor(self, node: NodeProto, index: int, shape: Sequence[int] | None = None) -> str:
        """Store the constant of an input as a parameter; return the name of the tensor."""
        array = self.constant(node, index)
        if shape is not None:
            array = array.reshape(shape)
        return self.store(node.input[index], array)

    def store(self, name: str, array: np.ndarray) -> str:
        """Store a tensor under ``name``, and return the name of the tensor.

        If another tensor has this name already, a number is appended.
        """
        array = np.ascontiguousarray(array, np.float32)
        chosen, number = name, 1
        while chosen in self.tensors and not np.array_equal(self.tensors[chosen], array):
            chosen, number = f"{name}_{number}", number + 1
        self.tensors[chosen] = array
        return chosen

    def rank(self, node: NodeProto, index: int = 0) -> int:
        """Return the number of axes of an input."""
        return len(self.shape(node, index))

    def shape(self, node: NodeProto, index: int = 0) -> tuple[Any, ...]:
        """Return the shape of an input as `ShapeInference.known` states it."""
        name = node.input[index]
        if name in self.constants:
            return self.constants[name].shape
        if name not in self._shapes.known:
            raise self.refuse(node, f"the shape of input {index} must be known", "no shape")
        return self._shapes.known[name]

    def state_shape(self, node: NodeProto, sides: Sequence[int | None]) -> None:
        """If the shape of a node's output is unknown, set its dimensions after the first."""
        self._shapes.state(node.output[0], sides)

    def add(
        self,
        onnx_node: NodeProto,
        op: str,
        inputs: Iterable[Output],
        tensors: Mapping[str, str] | None = None,
        **attributes: Any,
    ) -> Output:
        """Append a node, and return its output."""
        name = onnx_node.name or onnx_node.output[0]
        return self._append(name, op, tuple(inputs), tensors, attributes)

    def finish(
        self,
        onnx_node: NodeProto,
        op: str,
        inputs: Iterable[Output],
        tensors: Mapping[str, str] | None = None,
        **attributes: Any,
    ) -> None:
        """Append the node that computes the outputs of an ONNX node."""
        last = self.add(onnx_node, op, inputs, tensors, **attributes)
        for index, name in enumerate(onnx_node.output):
            self._values[name] = Output(last.node, index)

    def same_as(self, onnx_node: NodeProto, value: Output) -> None:
        """Use an existing value as the output of an ONNX node."""
        self._values[onnx_node.output[0]] = value

    def replace_last(self, value: Output, onnx_node: NodeProto, tensors: Mapping[str, str]) -> None:
        """Add tensors to the node of a value, and use the value as the output of an ONNX node."""
        index = next(i for i, node in enumerate(self.nodes) if node.name == value.node)
        old = self.nodes[index]
        both = {**old.tensors, **tensors}
        self.nodes[index] = Node(old.name, old.op, old.inputs, both, old.attributes)
        self._values[onnx_node.output[0]] = value

    def node_of(self, value: Output) -> Node | None:
        """Return the node of a value; None for the input of the graph."""
        return next((node for node in reversed(self.nodes) if node.name == value.node), None)

    def _append(
        self,
        name: str,
        op: str,
        inputs: tuple[Output, ...],
        tensors: Mapping[str, str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Output:
        chosen, number = name, 1
        while chosen in self._names:
            chosen, number = f"{name}_{number}", number + 1
        self._names.add(chosen)
        self.nodes.append(Node(chosen, op, inputs, tensors or {}, attributes or {}))
        return Output(chosen)


def describe(node: NodeProto) -> str:
    """Return the name and the operator of an ONNX node for a message."""
    return f"{node.name or (node.output[0] if node.output else '')!r} ({node.op_type})"


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of an ONNX node: numbers, texts, and lists of them."""
    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.type == AttributeProto.STRING:
            value = value.decode(errors="replace")
        found[attribute.name] = value
    return found
