# SPDX-License-Identifier: Apache-2.0
"""Conversion of elementwise ONNX operators and of reductions to nodes of a `Graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from interchange.onnx_reader import GraphReader, attributes_of

if TYPE_CHECKING:
    from onnx import NodeProto

    from interchange.onnx_read_layers import Reading

_BINARY = {"Add": "add", "Sum": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide",
           "Max": "maximum", "Min": "minimum"}  # fmt: skip
_LARGEST = float(np.finfo(np.float32).max)
_FLOAT_TYPES = (1, 10, 11, 16)  # FLOAT, FLOAT16, DOUBLE, BFLOAT16


def _binary(reader: GraphReader, node: NodeProto) -> None:
    if len(node.input) < 2:
        reader.same_as(node, reader.value(node))
        return
    constants = [index for index in (0, 1) if reader.is_constant(node.input[index])]
    if len(node.input) == 2 and len(constants) == 1 and _with_constant(reader, node, constants[0]):
        return
    op, value = _BINARY[node.op_type], reader.value(node)
    shapes = [reader.shape(node, index) for index in range(len(node.input))]
    wide = any(shape != shapes[0] for shape in shapes)
    for index in range(1, len(node.input) - 1):
        value = reader.add(node, op, [value, reader.value(node, index)], broadcast=wide)
    last = reader.value(node, len(node.input) - 1)
    reader.finish(node, op, [value, last], broadcast=wide)


def _with_constant(reader: GraphReader, node: NodeProto, index: int) -> bool:
    """Convert an operation on a value and a constant; return whether it was converted.

    The constant must be one number, one number per colour channel, or the bias of a dense layer.
    """
    constant = reader.constants[node.input[index]]
    if constant.dtype == object:
        return False
    value, numbers = reader.value(node, 1 - index), constant.astype(np.float64).reshape(-1)
    before = reader.node_of(value)
    is_bias = node.op_type == "Add" and before is not None and before.op == "dense"
    if (
        is_bias
        and before is not None
        and "bias" not in before.tensors
        and _is_sole_use(reader, node)
    ):
        units = len(reader.tensors[before.tensors["weight"]])
        if numbers.size == units:
            bias = reader.store(node.input[index], constant.reshape(-1))
            reader.replace_last(value, node, {"bias": bias})
            return True
    rank = reader.rank(node, 1 - index)
    is_colour = rank == 4 and constant.shape[-3:] == (3, 1, 1) and numbers.size == 3
    if numbers.size != 1 and not is_colour:
        return False
    if numbers.size == 1 and constant.ndim > rank:
        return False
    scalar = float(numbers[0])
    if node.op_type in ("Max", "Min"):
        op = {"Max": "mxnet._maximum_scalar", "Min": "mxnet._minimum_scalar"}[node.op_type]
        reader.finish(node, op, [value], scalar=repr(scalar))
        return numbers.size == 1
    if node.op_type == "Div" and index == 0:
        if numbers.size != 1:
            return False
        reader.finish(node, "mxnet._rdiv_scalar", [value], scalar=repr(scalar))
        return True
    one = np.ones_like(numbers)
    with np.errstate(divide="ignore"):
        scale, shift = {
            "Add": (one, numbers),
            "Sub": (one, -numbers) if index == 1 else (-one, numbers),
            "Mul": (numbers, 0 * one),
            "Div": (1 / numbers, 0 * one),
        }[node.op_type]
    if not np.isfinite([scale, shift]).all():
        raise reader.refuse(node, "the constant must be a finite number, not 0", numbers.tolist())
    reader.finish(node, "affine", [value], scale=_plain(scale), shift=_plain(shift))
    return True


def _is_sole_use(reader: GraphReader, node: NodeProto) -> bool:
    return all(reader.uses.get(name, 0) == 1 for name in node.input)


def _plain(numbers: np.ndarray) -> float | tuple[float, ...]:
    return float(numbers[0]) if numbers.size == 1 else tuple(float(number) for number in numbers)


def _function(op: str, **attributes: Any) -> Reading:
    return lambda reader, node: reader.finish(node, op, [reader.value(node)], **attributes)


def _leaky_relu(reader: GraphReader, node: NodeProto) -> None:
    slope = float(attributes_of(node).get("alpha", 0.01))
    reader.finish(node, "leaky_relu", [reader.value(node)], slope=slope)


def _elu(reader: GraphReader, node: NodeProto) -> None:
    slope = float(attributes_of(node).get("alpha", 1.0))
    reader.finish(node, "elu", [reader.value(node)], slope=slope)


def _hard_sigmoid(reader: GraphReader, node: NodeProto) -> None:
    attributes = attributes_of(node)
    alpha, beta = float(attributes.get("alpha", 0.2)), float(attributes.get("beta", 0.5))
    reader.finish(node, "hard_sigmoid", [reader.value(node)], alpha=alpha, beta=beta)


def _hard_swish(reader: GraphReader, node: NodeProto) -> None:
    value = reader.value(node)
    gate = reader.add(node, "hard_sigmoid", [value], alpha=1 / 6, beta=0.5)
    reader.finish(node, "multiply", [value, gate], broadcast=False)


def _clip(reader: GraphReader, node: NodeProto) -> None:
    attributes = attributes_of(node)
    low, high = (
        float(np.reshape(reader.constant(node, index, attributes.get(name, default)), -1)[0])
        for index, (name, default) in enumerate((("min", -_LARGEST), ("max", _LARGEST)), 1)
    )
    reader.finish(node, "clip", [reader.value(node)], low=low, high=high)


def _gelu(reader: GraphReader, node: NodeProto) -> None:
    approximate = attributes_of(node).get("approximate", "none")
    if approximate != "none":
        raise reader.refuse(node, "approximate must be 'none'", approximate)
    reader.finish(node, "gelu", [reader.value(node)])


def _pow(reader: GraphReader, node: NodeProto) -> None:
    exponent = reader.constant(node, 1)
    if exponent.size != 1:
        raise reader.refuse(node, "the exponent must be one number", f"shape {exponent.shape}")
    number = float(exponent.reshape(-1)[0])
    if number in (2.0, 0.5):
        reader.finish(node, {2.0: "square", 0.5: "sqrt"}[number], [reader.value(node)])
        return
    reader.finish(node, "mxnet._power_scalar", [reader.value(node)], scalar=repr(number))


def _cast(reader: GraphReader, node: NodeProto) -> None:
    target = attributes_of(node).get("to")
    if target not in _FLOAT_TYPES:
        raise reader.refuse(node, "values must stay floating-point numbers", f"ONNX type {target}")
    reader.same_as(node, reader.value(node))


def _same(reader: GraphReader, node: NodeProto) -> None:
    reader.same_as(node, reader.value(node))


def _softmax(reader: GraphReader, node: NodeProto) -> None:
    rank = reader.rank(node)
    axis = attributes_of(node).get("axis", 1 if reader.opset < 13 else -1) % rank
    if reader.opset < 13 and axis != rank - 1:
        raise reader.refuse(node, "the axis must be the last one", axis)
    reader.finish(node, "softmax", [reader.value(node)], axis=axis)


def _axes(reader: GraphReader, node: NodeProto) -> tuple[tuple[int, ...], bool]:
    """Return the axes over which a node reduces, and whether the axes remain with size 1."""
    attributes, rank = attributes_of(node), reader.rank(node)
    axes = attributes.get("axes")
    if axes is None:
        axes = reader.constant(node, 1, range(rank))
    axis = tuple(sorted(int(one) % rank for one in axes))
    return axis, bool(attributes.get("keepdims", 1))


def _sum_of_squares(reader: GraphReader, node: NodeProto) -> None:
    axis, keepdims = _axes(reader, node)
    squares = reader.add(node, "square", [reader.value(node)])
    reader.finish(node, "sum", [squares], axis=axis, keepdims=keepdims)


def _reduce(op: str, **settings: str) -> Reading:
    def read(reader: GraphReader, node: NodeProto) -> None:
        axis, keepdims = _axes(reader, node)
        if op.startswith("mxnet."):
            texts: dict[str, Any] = {**settings, "axis": str(axis), "keepdims": str(keepdims)}
            reader.finish(node, op, [reader.value(node)], **texts)
        elif op == "mean" and axis == (2, 3) and reader.rank(node) == 4:
            _average(reader, node, keepdims)
        else:
            reader.finish(node, op, [reader.value(node)], axis=axis, keepdims=keepdims)

    return read


def _average(reader: GraphReader, node: NodeProto, keepdims: bool) -> None:
    """Convert the mean over each feature map to global average pooling, which computes the same."""
    if keepdims:
        reader.finish(node, "global_pool", [reader.value(node)], kind="average")
        return
    pooled = reader.add(node, "global_pool", [reader.value(node)], kind="average")
    reader.finish(node, "flatten", [pooled])


def _lp_normalization(reader: GraphReader, node: NodeProto) -> None:
    attributes, rank = attributes_of(node), reader.rank(node)
    axis = attributes.get("axis", -1) % rank
    if attributes.get("p", 2) != 2 or axis != 1:
        raise reader.refuse(node, "the norm must be the L2 norm over axis 1", attributes)
    over = "instance" if rank == 2 else "channel"
    reader.finish(node, "l2_normalize", [reader.value(node)], over=over, epsilon=1e-24)


ARITHMETIC: dict[str, Reading] = {
    **dict.fromkeys(_BINARY, _binary),
    **{
        theirs: _function(ours)
        for theirs, ours in {
            "Relu": "relu",
            "Sigmoid": "sigmoid",
            "Tanh": "tanh",
            "Softplus": "softplus",
            "Softsign": "softsign",
            "Exp": "exp",
            "Sqrt": "sqrt",
            "Abs": "absolute",
            "Log": "mxnet.log",
            "Erf": "mxnet.erf",
            "Reciprocal": "mxnet.reciprocal",
        }.items()
    },
    "Neg": _function("affine", scale=-1.0, shift=0.0),
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Clip": _clip,
    "Gelu": _gelu,
    "Pow": _pow,
    "Cast": _cast,
    "Identity": _same,
    "Dropout": _same,
    "Softmax": _softmax,
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "ReduceSumSquare": _sum_of_squares,
    "ReduceMax": _reduce("mxnet.max"),
    "ReduceMin": _reduce("mxnet.min"),
    "ReduceL1": _reduce("mxnet.norm", ord="1"),
    "ReduceL2": _reduce("mxnet.norm", ord="2"),
    "LpNormalization": _lp_normalization,
}
"""Mapping from an ONNX operator to the function that reads its nodes."""
