# SPDX-License-Identifier: Apache-2.0
"""Translation of the operations of a `Graph` into nodes of ONNX, opset 13."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from interchange.graph import Node
from interchange.model import InterchangeError
from interchange.onnx_layers import LAYERS
from interchange.onnx_mxnet import MXNET_OPERATORS
from interchange.onnx_writer import NodeWriter
from interchange.ranks import axes_of

Translation = Callable[[NodeWriter, Node], None]


def write_node(writer: NodeWriter, node: Node) -> None:
    """Translate one node of a graph, after the nodes that compute its inputs.

    Raises
    ------
    InterchangeError
        If the operation has no translation, or if an attribute or a tensor is missing.
    """
    translate = _TRANSLATIONS.get(node.op)
    if translate is None:
        raise InterchangeError(
            f"node '{node.name}': the ONNX export does not support this operator, got '{node.op}'; "
            f"export the network with --format symbol"
        )
    try:
        translate(writer, node)
    except (KeyError, ValueError, TypeError) as error:
        raise InterchangeError(
            f"node '{node.name}' ({node.op}): the ONNX export does not support these settings, "
            f"got {dict(node.attributes)} ({type(error).__name__}: {error}); "
            f"export the network with --format symbol"
        ) from error


def _plain(op_type: str) -> Translation:
    return lambda writer, node: writer.finish(node, op_type, writer.inputs(node))


def _same_value(writer: NodeWriter, node: Node) -> None:
    writer.assign(node.name, writer.inputs(node))


def _chain(op_type: str) -> Translation:
    """Return a translation of an operation on two or more values to binary ONNX nodes."""

    def translate(writer: NodeWriter, node: Node) -> None:
        first, *rest, last = writer.inputs(node)
        for index, value in enumerate(rest):
            first = writer.step(node, f"{index}", op_type, [first, value])
        writer.finish(node, op_type, [first, last])

    return translate


def _with_attributes(op_type: str, **names: str) -> Translation:
    def translate(writer: NodeWriter, node: Node) -> None:
        values = {theirs: node.attributes[ours] for theirs, ours in names.items()}
        writer.finish(node, op_type, writer.inputs(node), **values)

    return translate


def _gelu(writer: NodeWriter, node: Node) -> None:
    (x,), name = writer.inputs(node), node.name
    scaled = writer.step(node, "scaled", "Div", [x, writer.number(f"{name}_root", np.sqrt(2))])
    erf = writer.step(node, "erf", "Erf", [scaled])
    shifted = writer.step(node, "shifted", "Add", [erf, writer.number(f"{name}_one", 1)])
    product = writer.step(node, "product", "Mul", [x, shifted])
    writer.finish(node, "Mul", [product, writer.number(f"{name}_half", 0.5)])


def _square(writer: NodeWriter, node: Node) -> None:
    writer.finish(node, "Mul", writer.inputs(node) * 2)


def _clip(writer: NodeWriter, node: Node) -> None:
    bounds = [writer.number(f"{node.name}_{name}", node.attributes[name])
              for name in ("low", "high")]  # fmt: skip
    writer.finish(node, "Clip", [*writer.inputs(node), *bounds])


def _l2_normalize(writer: NodeWriter, node: Node) -> None:
    (x,), rank = writer.inputs(node), writer.rank(node.inputs[0])
    groups = {
        "instance": list(range(1, rank)),
        "channel": [1],
        "spatial": list(range(2, rank)),
    }
    axes = groups[node.attributes["over"]]
    squares = writer.step(node, "squares", "ReduceSumSquare", [x], axes=axes, keepdims=1)
    epsilon = writer.number(f"{node.name}_epsilon", node.attributes["epsilon"])
    root = writer.step(node, "root", "Sqrt", [writer.step(node, "sum", "Add", [squares, epsilon])])
    writer.finish(node, "Div", [x, root])


def _axes(writer: NodeWriter, node: Node) -> list[int]:
    return axes_of(node.attributes.get("axis"), writer.rank(node.inputs[0]))


def _mean(writer: NodeWriter, node: Node) -> None:
    keepdims = int(bool(node.attributes.get("keepdims")))
    axes = _axes(writer, node)
    writer.finish(node, "ReduceMean", writer.inputs(node), axes=axes, keepdims=keepdims)


def _sum(writer: NodeWriter, node: Node) -> None:
    axes = writer.integers(f"{node.name}_axes", _axes(writer, node))
    keepdims = int(bool(node.attributes.get("keepdims")))
    writer.finish(node, "ReduceSum", [*writer.inputs(node), axes], keepdims=keepdims)


def _with_integers(op_type: str, name: str) -> Translation:
    def translate(writer: NodeWriter, node: Node) -> None:
        value = node.attributes[name]
        values = writer.integers(
            f"{node.name}_{name}", [value] if isinstance(value, int) else value
        )
        writer.finish(node, op_type, [*writer.inputs(node), values])

    return translate


def _squeeze(writer: NodeWriter, node: Node) -> None:
    axes = writer.integers(f"{node.name}_axes", _axes(writer, node))
    writer.finish(node, "Squeeze", [*writer.inputs(node), axes])


def _transpose(writer: NodeWriter, node: Node) -> None:
    axes = node.attributes.get("axes") or range(writer.rank(node.inputs[0]))[::-1]
    writer.finish(node, "Transpose", writer.inputs(node), perm=list(axes))


def _slice(writer: NodeWriter, node: Node) -> None:
    end = node.attributes["end"]
    bounds = [
        writer.integers(f"{node.name}_{name}", [value])
        for name, value in (
            ("begin", node.attributes["begin"]),
            ("end", np.iinfo(np.int64).max if end is None else end),
            ("axis", node.attributes["axis"]),
        )
    ]
    writer.finish(node, "Slice", [*writer.inputs(node), *bounds])


def _split(writer: NodeWriter, node: Node) -> None:
    parts, axis = node.attributes["parts"], node.attributes["axis"]
    values = writer.emit("Split", writer.inputs(node), node.name, outputs=parts, axis=axis)
    if node.attributes.get("squeeze"):
        axes = writer.integers(f"{node.name}_axes", [axis])
        values = [writer.step(node, "squeezed", "Squeeze", [value, axes]) for value in values]
    writer.assign(node.name, values)


def _tile(writer: NodeWriter, node: Node) -> None:
    value = node.attributes["repeats"]
    repeats = [value] if isinstance(value, int) else list(value)
    missing = writer.rank(node.inputs[0]) - len(repeats)
    counts = writer.integers(f"{node.name}_repeats", [1] * missing + repeats)
    writer.finish(node, "Tile", [*writer.inputs(node), counts])


_SAME = ("identity", "dropout")
_PLAIN = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "exp": "Exp",
    "sqrt": "Sqrt",
    "absolute": "Abs",
    "flatten": "Flatten",
}
_CHAINS = {
    "add": "Add",
    "multiply": "Mul",
    "subtract": "Sub",
    "divide": "Div",
    "maximum": "Max",
    "minimum": "Min",
}
_TRANSLATIONS: dict[str, Any] = {
    **LAYERS,
    **MXNET_OPERATORS,
    **dict.fromkeys(_SAME, _same_value),
    **{ours: _plain(theirs) for ours, theirs in _PLAIN.items()},
    **{ours: _chain(theirs) for ours, theirs in _CHAINS.items()},
    "gelu": _gelu,
    "square": _square,
    "leaky_relu": _with_attributes("LeakyRelu", alpha="slope"),
    "elu": _with_attributes("Elu", alpha="slope"),
    "hard_sigmoid": _with_attributes("HardSigmoid", alpha="alpha", beta="beta"),
    "clip": _clip,
    "softmax": _with_attributes("Softmax", axis="axis"),
    "l2_normalize": _l2_normalize,
    "mean": _mean,
    "sum": _sum,
    "reshape": _with_integers("Reshape", "shape"),
    "transpose": _transpose,
    "expand_dims": _with_integers("Unsqueeze", "axis"),
    "squeeze": _squeeze,
    "concat": _with_attributes("Concat", axis="axis"),
    "slice": _slice,
    "split": _split,
    "tile": _tile,
}
