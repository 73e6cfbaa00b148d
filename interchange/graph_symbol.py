# SPDX-License-Identifier: Apache-2.0
"""Convert a `Graph` to an MXNet symbol and its parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from interchange.graph import Output
from interchange.model import InterchangeError
from interchange.mxnet_operators import OPAQUE, WRITTEN
from nets.symbol_json import SymbolError, load_symbol

if TYPE_CHECKING:
    import mxnet as mx

    from interchange.graph import Graph, Node

SUFFIXES = {"running_mean": "moving_mean", "running_var": "moving_var", "slope": "gamma"}
"""Mapping from the role of a tensor to the last part of its name in MXNet, where they differ."""
VECTORS = ("dense", "flatten")
"""Operations whose output has the shape (B, C)."""
MXNET_VERSION = 10901


class SymbolParts(NamedTuple):
    """Symbol and the values of its variables, by name."""

    symbol: mx.sym.Symbol
    parameters: dict[str, np.ndarray]


def graph_symbol(
    graph: Graph,
    where: str,
    *,
    suffixes: Mapping[str, str] = SUFFIXES,
) -> SymbolParts:
    """Convert a graph to a symbol, whose input is the variable ``data``.

    Before a batch normalisation, a value (B, C) is reshaped to (B, C, 1, 1), for the reason that
    `interchange.symbol_function.reshape_vectors` gives.

    Parameters
    ----------
    where
        Path of the source of the graph, for error messages.
    suffixes
        Mapping from the role of a tensor to the last part of the name of its variable.  For a role
        without an entry, the role itself is the last part.  The first part is the name of the node.

    Raises
    ------
    InterchangeError
        If MXNet lacks an operation of the graph, or refuses its attributes.
    """
    writer = _Writer(graph, where, suffixes)
    try:
        return SymbolParts(load_symbol(writer.text(), where), writer.parameters)
    except SymbolError as error:
        raise InterchangeError(str(error)) from None


class _Writer:
    """Writer of the nodes of a symbol's JSON."""

    def __init__(self, graph: Graph, where: str, suffixes: Mapping[str, str]) -> None:
        self.graph, self.where, self.suffixes = graph, where, suffixes
        self.content: list[dict[str, Any]] = []
        self.parameters: dict[str, np.ndarray] = {}
        self.variables: dict[str, int] = {}  # name of a tensor -> index of its node in content
        self.values: dict[Output, tuple[int, int]] = {}
        self.vectors: set[Output] = set()  # values of shape (B, C)
        self.names: set[str] = set()

    def text(self) -> str:
        size = self.graph.image_size
        shape = {"__shape__": str((0, 3, *size))} if size else {}
        self.values[Output(self.graph.inputs[0])] = (self._add("null", "data", [], shape), 0)
        for node in self.graph:
            self._write(node)
        heads = [[*self.values[value], 0] for value in self.graph.outputs]
        arguments = [i for i, node in enumerate(self.content) if node["op"] == "null"]
        return json.dumps({
            "nodes": self.content,
            "arg_nodes": arguments,
            "heads": heads,
            "attrs": {"mxnet_version": ["int", MXNET_VERSION]},
        })  # fmt: skip

    def _add(
        self, op: str, name: str, inputs: Sequence[tuple[int, int]], attributes: Mapping[str, Any]
    ) -> int:
        """Add a node and return its index in ``content``."""
        unique = next(n for n in (name, *(f"{name}_{i}" for i in range(len(self.names) + 1)))
                      if n not in self.names)  # fmt: skip
        self.names.add(unique)
        node: dict[str, Any] = {
            "op": op, "name": unique, "inputs": [[*entry, 0] for entry in inputs]
        }  # fmt: skip
        if attributes:
            node["attrs"] = {key: _as_text(value) for key, value in attributes.items()}
        self.content.append(node)
        return len(self.content) - 1

    def _variable(self, node: Node, role: str) -> tuple[int, int]:
        tensor = node.tensors[role]
        if tensor not in self.variables:
            name = f"{node.name}_{self.suffixes.get(role, role)}"
            self.variables[tensor] = self._constant(name, self.graph.tensors[tensor])
        return self.variables[tensor], 0

    def _constant(self, name: str, value: np.ndarray, fixed: bool = False) -> int:
        attributes = {"__shape__": value.shape, **({"__lr_mult__": 0.0} if fixed else {})}
        number = self._add("null", name, [], attributes)
        self.parameters[self.content[number]["name"]] = value
        return number

    def _write(self, node: Node) -> None:
        inputs = [self.values[value] for value in node.inputs]
        is_vector = node.op in VECTORS or (
            node.op not in ("reshape", "expand_dims", "transpose", "squeeze")
            and any(value in self.vectors for value in node.inputs)
        )
        if node.op == "affine":
            number = self._write_affine(node, inputs[0])
        elif node.op == "constant":
            number = self._variable(node, "value")[0]
        elif node.op == "batch_norm" and is_vector:
            wide = self._add("Reshape", f"{node.name}_wide", inputs, {"shape": (0, -1, 1, 1)})
            wide = self._write_known(node, [(wide, 0)], f"{node.name}_norm")
            number = self._add("Flatten", node.name, [(wide, 0)], {})
        else:
            number = self._write_known(node, inputs, node.name)
        for index in range(max(1, int(node.attributes.get("parts", 1)))):
            self.values[Output(node.name, index)] = (number, index)
            if is_vector:
                self.vectors.add(Output(node.name, index))

    def _write_known(self, node: Node, inputs: Sequence[tuple[int, int]], name: str) -> int:
        if node.op.startswith(OPAQUE):
            return self._add(node.op.removeprefix(OPAQUE), name, inputs, node.attributes)
        wide = bool(node.attributes.get("broadcast", False))
        found = WRITTEN.get((node.op, wide)) or WRITTEN.get((node.op, not wide))
        if found is None:
            raise InterchangeError(
                f"{self.where}: MXNet must have the operation of node {node.name!r}, got "
                f"{node.op!r}; use a model without this operation"
            )
        op, operator = found
        attributes = operator.write(node.attributes)
        if node.op == "add" and len(inputs) > 2:
            op, attributes = "add_n", {"num_args": len(inputs)}
        if node.op == "concat":
            attributes["num_args"] = len(inputs)
        if node.op in ("conv", "dense"):
            count = len(self.graph.tensors[node.tensors["weight"]])
            attributes["num_filter" if node.op == "conv" else "num_hidden"] = count
            attributes["no_bias"] = "bias" not in node.tensors
        roles = [role for role in operator.tensors if role in node.tensors]
        return self._add(op, name, [*inputs, *(self._variable(node, r) for r in roles)], attributes)

    def _write_affine(self, node: Node, value: tuple[int, int]) -> int:
        scale, shift = node.attributes["scale"], node.attributes["shift"]
        steps: list[tuple[str, str, Any]] = []
        for op, number, neutral in (("mul", scale, 1), ("plus", shift, 0)):
            if isinstance(number, tuple):
                steps.append((f"broadcast_{op.replace('plus', 'add')}", f"_{op}", number))
            elif number != neutral:
                signed = ("minus", -number) if op == "plus" and number < 0 else (op, number)
                steps.append((f"_{signed[0]}_scalar", f"_{op}", signed[1]))
        steps = steps or [("identity", "", None)]
        for index, (op, suffix, number) in enumerate(steps):
            name = node.name if index == len(steps) - 1 else f"{node.name}{suffix}"
            inputs, attributes = [value], {}
            if isinstance(number, tuple):
                array = np.array(number, np.float32).reshape(1, -1, 1, 1)
                inputs.append((self._constant(f"{node.name}{suffix}_value", array, True), 0))
            elif number is not None:
                attributes = {"scalar": number}
            value = (self._add(op, name, inputs, attributes), 0)
        return value[0]


def _as_text(value: Any) -> str:
    """Convert an attribute to text; the text of a float has all digits."""
    return repr(value) if isinstance(value, float) else str(value)
