# SPDX-License-Identifier: Apache-2.0
"""Translation to ONNX, opset 13, of MXNet operators that `interchange.graph` does not list.

A `Graph` contains such an operator as a node with the operation ``mxnet.<Name>`` and MXNet's
attributes as texts.  The parameters are constants among the inputs of the node.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from interchange.ranks import axes_of

if TYPE_CHECKING:
    from interchange.graph import Node
    from interchange.onnx_writer import NodeWriter


def _value(node: Node, name: str, default: Any) -> Any:
    """Return an attribute, converted from text to a number, bool or tuple."""
    text = node.attributes.get(name)
    return default if text is None else ast.literal_eval(str(text))


def _plain(op_type: str) -> Any:
    return lambda writer, node: writer.finish(node, op_type, writer.inputs(node))


def _scalar(op_type: str, *, left: bool = False) -> Any:
    """Return a translation for an operator on a value and a number.

    With ``left`` the number is the left operand.
    """

    def translate(writer: NodeWriter, node: Node) -> None:
        number = writer.number(f"{node.name}_scalar", float(_value(node, "scalar", 0.0)))
        operands = [*writer.inputs(node), number]
        writer.finish(node, op_type, operands[::-1] if left else operands)

    return translate


def _dense_last(writer: NodeWriter, node: Node) -> None:
    """Translate FullyConnected(flatten=False), which applies to the last axis."""
    x, weight, *bias = writer.inputs(node)
    if _value(node, "flatten", True):
        raise ValueError("flatten must be False here")
    transposed = writer.step(node, "weight", "Transpose", [weight], perm=[1, 0])
    if _value(node, "no_bias", False) or not bias:
        writer.finish(node, "MatMul", [x, transposed])
        return
    product = writer.step(node, "product", "MatMul", [x, transposed])
    writer.finish(node, "Add", [product, bias[0]])


def _matmul(writer: NodeWriter, node: Node) -> None:
    """Translate batch_dot and linalg_gemm2, which multiply the matrices of the last two axes."""
    operands = []
    for side, output in zip("ab", node.inputs, strict=True):
        value, rank = writer.value(output), writer.rank(output)
        if _value(node, f"transpose_{side}", False):
            order = [*range(rank - 2), rank - 1, rank - 2]
            value = writer.step(node, side, "Transpose", [value], perm=order)
        operands.append(value)
    alpha = float(_value(node, "alpha", 1.0))
    if alpha == 1:
        writer.finish(node, "MatMul", operands)
        return
    product = writer.step(node, "product", "MatMul", operands)
    writer.finish(node, "Mul", [product, writer.number(f"{node.name}_alpha", alpha)])


def _layer_norm(writer: NodeWriter, node: Node) -> None:
    # ONNX has LayerNormalization only from opset 17 on, so opset 13 needs the single operations.
    x, gamma, beta = writer.inputs(node)
    axis, rank = _value(node, "axis", -1), writer.rank(node.inputs[0])
    if axis % rank != rank - 1:
        raise ValueError("the axis must be the last one")
    mean = writer.step(node, "mean", "ReduceMean", [x], axes=[axis])
    centred = writer.step(node, "centred", "Sub", [x, mean])
    squares = writer.step(node, "squares", "Mul", [centred, centred])
    variance = writer.step(node, "variance", "ReduceMean", [squares], axes=[axis])
    epsilon = writer.number(f"{node.name}_epsilon", float(_value(node, "eps", 1e-5)))
    root = writer.step(node, "root", "Sqrt", [writer.step(node, "sum", "Add", [variance, epsilon])])
    scaled = writer.step(node, "scaled", "Div", [centred, root])
    writer.finish(node, "Add", [writer.step(node, "product", "Mul", [scaled, gamma]), beta])


def _upsample(writer: NodeWriter, node: Node) -> None:
    if node.attributes.get("sample_type") != "nearest" or len(node.inputs) != 1:
        raise ValueError("sample_type must be nearest")
    scale = float(_value(node, "scale", 1))
    scales = np.array([1, 1, scale, scale], np.float32)
    writer.finish(
        node,
        "Resize",
        [*writer.inputs(node), "", writer.initializer(f"{node.name}_scales", scales)],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _bilinear(writer: NodeWriter, node: Node) -> None:
    """Translate a BilinearResize2D that has a size in pixels and aligns the corners.

    By default, BilinearResize2D aligns the corners.
    """
    aligned = _value(node, "align_corners", True)
    if node.attributes.get("mode", "size") != "size" or not aligned or len(node.inputs) != 1:
        raise ValueError("mode must be 'size', and align_corners must be True")
    (x,) = writer.inputs(node)
    shape = writer.step(node, "shape", "Shape", [x])
    begin, end = (
        writer.integers(f"{node.name}_{name}", [side]) for name, side in (("begin", 0), ("end", 2))
    )
    kept = writer.step(node, "kept", "Slice", [shape, begin, end])
    sides = [int(_value(node, name, 1)) for name in ("height", "width")]
    wanted = writer.step(
        node, "sizes", "Concat", [kept, writer.integers(f"{node.name}_sides", sides)], axis=0
    )
    writer.finish(
        node,
        "Resize",
        [x, "", "", wanted],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )


def _reduce(op_type: str) -> Any:
    def translate(writer: NodeWriter, node: Node) -> None:
        axes = axes_of(_value(node, "axis", None), writer.rank(node.inputs[0]))
        keepdims = int(_value(node, "keepdims", False))
        writer.finish(node, op_type, writer.inputs(node), axes=axes, keepdims=keepdims)

    return translate


def _norm(writer: NodeWriter, node: Node) -> None:
    order = _value(node, "ord", 2)
    if order not in (1, 2):
        raise ValueError("ord must be 1 or 2")
    _reduce(f"ReduceL{order}")(writer, node)


def _pad(writer: NodeWriter, node: Node) -> None:
    mode = node.attributes.get("mode", "constant")
    widths = _value(node, "pad_width", ())
    padding = writer.integers(f"{node.name}_padding", [*widths[::2], *widths[1::2]])
    value = writer.number(f"{node.name}_value", float(_value(node, "constant_value", 0.0)))
    writer.finish(node, "Pad", [*writer.inputs(node), padding, value], mode=mode)


def _inverse_root(writer: NodeWriter, node: Node) -> None:
    writer.finish(node, "Reciprocal", [writer.step(node, "root", "Sqrt", writer.inputs(node))])


MXNET_OPERATORS: Mapping[str, Any] = {
    f"mxnet.{name}": translation
    for name, translation in {
        "FullyConnected": _dense_last,
        "batch_dot": _matmul,
        "_linalg_gemm2": _matmul,
        "linalg_gemm2": _matmul,
        "LayerNorm": _layer_norm,
        "UpSampling": _upsample,
        "_contrib_BilinearResize2D": _bilinear,
        "Pad": _pad,
        "pad": _pad,
        "norm": _norm,
        "max": _reduce("ReduceMax"),
        "min": _reduce("ReduceMin"),
        "rsqrt": _inverse_root,
        **{
            f"{prefix}_scalar": _scalar(op_type)
            for prefix, op_type in {
                "_plus": "Add",
                "_minus": "Sub",
                "_mul": "Mul",
                "_div": "Div",
                "_power": "Pow",
                "_maximum": "Max",
                "_minimum": "Min",
            }.items()
        },
        "_rdiv_scalar": _scalar("Div", left=True),
        "_rminus_scalar": _scalar("Sub", left=True),
        "broadcast_power": _plain("Pow"),
        "broadcast_maximum": _plain("Max"),
        "broadcast_minimum": _plain("Min"),
        "negative": _plain("Neg"),
        "log": _plain("Log"),
        "erf": _plain("Erf"),
        "abs": _plain("Abs"),
        "reciprocal": _plain("Reciprocal"),
    }.items()
}
"""Mapping from an operation of a `Graph` to the function that writes the operation."""
