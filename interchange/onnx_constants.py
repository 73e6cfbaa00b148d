# SPDX-License-Identifier: Apache-2.0
"""Evaluation of the ONNX nodes that compute constants and shapes.

PyTorch exports `x.view(x.size(0), -1)` as nodes that read the shape of x and build the new shape.
Shapes are arrays of Python objects, in which `onnx_shape_inference.BATCH` stands for the number of
images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from interchange.onnx_file import tensor_array
from interchange.onnx_reader import GraphReader, attributes_of

if TYPE_CHECKING:
    from onnx import NodeProto

MAX_ELEMENTS = 100_000_000
"""Largest number of elements of an evaluated constant."""


def fold(reader: GraphReader, node: NodeProto) -> bool:
    """Evaluate a node if its output is a constant; return whether the output is a constant."""
    if node.op_type == "Constant":
        reader.constants[node.output[0]] = _constant(reader, node)
        return True
    if node.op_type == "Shape":
        reader.constants[node.output[0]] = _shape(reader, node)
        return True
    evaluate = _EVALUATIONS.get(node.op_type)
    names = [name for name in node.input if name]
    if evaluate is None or not names or not all(reader.is_constant(name) for name in names):
        return False
    inputs = [reader.constants[name] if name else None for name in node.input]
    try:
        value = evaluate(attributes_of(node), *inputs)
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise reader.refuse(node, "the constant must be computable", error) from None
    reader.constants[node.output[0]] = value
    return True


def _constant(reader: GraphReader, node: NodeProto) -> np.ndarray:
    attributes = attributes_of(node)
    if "value" in attributes:
        return tensor_array(attributes["value"], reader.path)
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32),
                        ("value_int", np.int64), ("value_ints", np.int64)):  # fmt: skip
        if name in attributes:
            return np.array(attributes[name], dtype)
    raise reader.refuse(node, "the constant must consist of numbers", sorted(attributes))


def _shape(reader: GraphReader, node: NodeProto) -> np.ndarray:
    attributes, shape = attributes_of(node), reader.shape(node)
    if None in shape:
        raise reader.refuse(node, "every dimension of the shape must be known", shape)
    return _objects(shape[attributes.get("start", 0) : attributes.get("end")])


def _objects(values: Any) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _gather(attributes: dict[str, Any], data: np.ndarray, indices: np.ndarray) -> np.ndarray:
    if indices.size * max(1, data.size) > MAX_ELEMENTS:
        raise ValueError("too many elements")
    taken = np.take(data, indices.astype(np.int64), axis=attributes.get("axis", 0))
    if data.dtype != object or isinstance(taken, np.ndarray):
        return np.asarray(taken)
    scalar = np.empty((), object)
    scalar[()] = taken
    return scalar


def _axes(attributes: dict[str, Any], axes: np.ndarray | None) -> list[int] | None:
    values = attributes.get("axes") if axes is None else axes
    return None if values is None else [int(axis) for axis in values]


def _unsqueeze(
    attributes: dict[str, Any], data: np.ndarray, axes: np.ndarray | None = None
) -> np.ndarray:
    return np.expand_dims(data, tuple(_axes(attributes, axes) or ()))


def _squeeze(
    attributes: dict[str, Any], data: np.ndarray, axes: np.ndarray | None = None
) -> np.ndarray:
    chosen = _axes(attributes, axes)
    return np.squeeze(data, None if chosen is None else tuple(chosen))


def _concat(attributes: dict[str, Any], *values: np.ndarray) -> np.ndarray:
    return np.concatenate(values, axis=attributes.get("axis", 0))


def _slice(
    attributes: dict[str, Any],
    data: np.ndarray,
    starts: np.ndarray | None = None,
    ends: np.ndarray | None = None,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> np.ndarray:
    first = attributes["starts"] if starts is None else starts
    last = attributes["ends"] if ends is None else ends
    chosen = _axes(attributes, axes) or list(range(len(first)))
    index = [slice(None)] * data.ndim
    for number, axis in enumerate(chosen):
        step = 1 if steps is None else int(steps[number])
        index[axis] = slice(int(first[number]), int(last[number]), step)
    return data[tuple(index)]


def _reshape(attributes: dict[str, Any], data: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return data.reshape([int(side) for side in shape])


def _transpose(attributes: dict[str, Any], data: np.ndarray) -> np.ndarray:
    return np.transpose(data, attributes.get("perm"))


def _fill(attributes: dict[str, Any], shape: np.ndarray) -> np.ndarray:
    sides = [int(side) for side in shape]
    if np.prod(sides, dtype=float) > MAX_ELEMENTS:
        raise ValueError(f"too many elements: {sides}")
    from onnx import numpy_helper

    value = attributes.get("value")
    return np.full(sides, numpy_helper.to_array(value)[0] if value is not None else np.float32(0))


def _binary(function: Any) -> Any:
    def evaluate(attributes: dict[str, Any], first: np.ndarray, second: np.ndarray) -> np.ndarray:
        if np.broadcast(first, second).size > MAX_ELEMENTS:
            raise ValueError("too many elements")
        return np.asarray(function(first, second))

    return evaluate


def _divide(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    integers = first.dtype != np.float32
    return np.asarray(first // second if integers else first / second)


_EVALUATIONS: dict[str, Any] = {
    **dict.fromkeys(("Identity", "Cast"), lambda attributes, data: data),
    "Gather": _gather,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Slice": _slice,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "ConstantOfShape": _fill,
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _binary(_divide),
}
"""Mapping from an ONNX operator to the function that evaluates its nodes.

`fold` also evaluates nodes of Constant and Shape, and nodes of no other operators."""
