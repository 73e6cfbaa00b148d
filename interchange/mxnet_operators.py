# SPDX-License-Identifier: Apache-2.0
"""Table of MXNet's operators and the operations of a `Graph` that they correspond to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from interchange.mxnet_attributes import (
    Attributes,
    nothing,
    number,
    read_adaptive_pool,
    read_batch_norm,
    read_conv,
    read_global_pool,
    read_normalize,
    read_pool,
    read_reshape,
    renamed,
    require,
    same,
    write_batch_norm,
    write_conv,
    write_global_pool,
    write_pool,
)

OPAQUE = "mxnet."
"""Prefix of operations that stand for MXNet operators which `interchange.graph` does not list."""


@dataclass(frozen=True)
class Operator:
    """Correspondence of an operation of a `Graph` to an MXNet operator."""

    op: str
    """Name of the operation in a `Graph`."""
    read: Callable[[Attributes], dict[str, Any]]
    """Convert attributes of MXNet to those of the operation; may raise `Unsupported`."""
    write: Callable[[Attributes], dict[str, Any]]
    """Convert attributes of the operation to those of MXNet."""
    tensors: tuple[str, ...] = ()
    """Roles of the parameters, in the order of MXNet's inputs after the first input."""


def _affine(scale: Callable[[float], float], shift: Callable[[float], float]) -> Operator:
    """Return an affine operation; two functions compute scale and shift from MXNet's scalar."""

    def read(attributes: Attributes) -> dict[str, Any]:
        scalar = number(attributes, "scalar", 0.0)
        require(scale(scalar) != 0, "a scale of 0")
        return {"scale": scale(scalar), "shift": shift(scalar)}

    return Operator("affine", read, nothing)


CONV = Operator("conv", read_conv, write_conv, ("weight", "bias"))
NORM = Operator(
    "batch_norm",
    read_batch_norm,
    write_batch_norm,
    ("gamma", "beta", "running_mean", "running_var"),
)
POOL = Operator("pool", read_pool, write_pool)
GLOBAL_POOL = Operator("global_pool", read_global_pool, write_global_pool)
ADAPTIVE_POOL = Operator("global_pool", read_adaptive_pool, write_global_pool)
DENSE = Operator("dense", nothing, lambda attributes: {"flatten": True}, ("weight", "bias"))
PRELU = Operator("prelu", nothing, lambda attributes: {"act_type": "prelu"}, ("slope",))
LEAKY = {
    "leaky": Operator(
        "leaky_relu",
        lambda attributes: {"slope": number(attributes, "slope", 0.25)},
        lambda attributes: {"act_type": "leaky", "slope": attributes["slope"]},
    ),
    "elu": Operator(
        "elu",
        lambda attributes: {"slope": number(attributes, "slope", 0.25)},
        lambda attributes: {"act_type": "elu", "slope": attributes["slope"]},
    ),
    "gelu": Operator("gelu", nothing, lambda attributes: {"act_type": "gelu"}),
    "prelu": PRELU,
}
ACTIVATIONS = {"softrelu": "softplus"}
"""Mapping from the name of an activation in MXNet to the name of the operation, if they differ."""


def _activation(kind: str) -> Operator:
    return Operator(ACTIVATIONS.get(kind, kind), nothing, lambda attributes: {"act_type": kind})


def _binary(op: str) -> tuple[Operator, Operator]:
    """Return two variants of an operation on two values: without and with broadcasting."""
    return (
        Operator(op, lambda attributes: {"broadcast": False}, nothing),
        Operator(op, lambda attributes: {"broadcast": True}, nothing),
    )


_ADD, _ADD_WIDE = _binary("add")
_MUL, _MUL_WIDE = _binary("multiply")
_SUB, _SUB_WIDE = _binary("subtract")
_DIV, _DIV_WIDE = _binary("divide")
_IDENTITY = Operator("identity", nothing, nothing)
_AXES = same(axis=None, keepdims=False)
_SLICE = renamed({"axis": "axis", "begin": "begin", "end": "end"}, begin=0)
_SPLIT = renamed({"axis": "axis", "parts": "num_outputs", "squeeze": "squeeze_axis"},
                  axis=1, squeeze=False)  # fmt: skip
_FLATTEN = Operator("flatten", nothing, nothing)

OPERATORS: dict[str, Operator] = {
    "Convolution": CONV,
    "Convolution_v1": CONV,
    "BatchNorm": NORM,
    "BatchNorm_v1": NORM,
    "CuDNNBatchNorm": NORM,
    "SyncBatchNorm": NORM,
    "_contrib_SyncBatchNorm": NORM,
    "FullyConnected": DENSE,
    "_contrib_AdaptiveAvgPooling2D": ADAPTIVE_POOL,
    "elemwise_add": _ADD,
    "_plus": _ADD,
    "_Plus": _ADD,
    "_add": _ADD,
    "add_n": _ADD,
    "ElementWiseSum": _ADD,
    "broadcast_add": _ADD_WIDE,
    "broadcast_plus": _ADD_WIDE,
    "elemwise_mul": _MUL,
    "_mul": _MUL,
    "_Mul": _MUL,
    "broadcast_mul": _MUL_WIDE,
    "elemwise_sub": _SUB,
    "_sub": _SUB,
    "_minus": _SUB,
    "_Minus": _SUB,
    "broadcast_sub": _SUB_WIDE,
    "broadcast_minus": _SUB_WIDE,
    "elemwise_div": _DIV,
    "_div": _DIV,
    "_Div": _DIV,
    "broadcast_div": _DIV_WIDE,
    "broadcast_maximum": Operator("maximum", lambda a: {"broadcast": True}, nothing),
    "broadcast_minimum": Operator("minimum", lambda a: {"broadcast": True}, nothing),
    "_plus_scalar": _affine(lambda n: 1.0, lambda n: n),
    "_PlusScalar": _affine(lambda n: 1.0, lambda n: n),
    "_minus_scalar": _affine(lambda n: 1.0, lambda n: -n),
    "_MinusScalar": _affine(lambda n: 1.0, lambda n: -n),
    "_rminus_scalar": _affine(lambda n: -1.0, lambda n: n),
    "_RMinusScalar": _affine(lambda n: -1.0, lambda n: n),
    "_mul_scalar": _affine(lambda n: n, lambda n: 0.0),
    "_MulScalar": _affine(lambda n: n, lambda n: 0.0),
    "_div_scalar": _affine(lambda n: 1.0 / n if n else 0.0, lambda n: 0.0),
    "_DivScalar": _affine(lambda n: 1.0 / n if n else 0.0, lambda n: 0.0),
    "Dropout": Operator(
        "dropout",
        lambda attributes: {"rate": number(attributes, "p", 0.5)},
        lambda attributes: {"p": attributes["rate"]},
    ),
    "Flatten": _FLATTEN,
    "flatten": _FLATTEN,
    "Reshape": Operator("reshape", read_reshape, lambda a: {"shape": a["shape"]}),
    "reshape": Operator("reshape", read_reshape, lambda a: {"shape": a["shape"]}),
    "_copy": _IDENTITY,
    "identity": _IDENTITY,
    "BlockGrad": _IDENTITY,
    "stop_gradient": _IDENTITY,
    "Cast": _IDENTITY,
    "cast": _IDENTITY,
    "amp_cast": _IDENTITY,
    "Concat": Operator("concat", *renamed({"axis": "dim"}, axis=1)),
    "concat": Operator("concat", *renamed({"axis": "dim"}, axis=1)),
    "SliceChannel": Operator("split", *_SPLIT),
    "split": Operator("split", *_SPLIT),
    "slice_axis": Operator("slice", *_SLICE),
    "transpose": Operator("transpose", *same(axes=())),
    "expand_dims": Operator("expand_dims", *same("axis")),
    "squeeze": Operator("squeeze", *same("axis")),
    "sum": Operator("sum", *_AXES),
    "sum_axis": Operator("sum", *_AXES),
    "mean": Operator("mean", *_AXES),
    "tile": Operator("tile", *renamed({"repeats": "reps"})),
    "softmax": Operator("softmax", *same(axis=-1)),
    "clip": Operator("clip", *renamed({"low": "a_min", "high": "a_max"})),
    "hard_sigmoid": Operator("hard_sigmoid", *same(alpha=0.2, beta=0.5)),
    "L2Normalization": Operator(
        "l2_normalize",
        read_normalize,
        lambda attributes: {"mode": attributes["over"], "eps": attributes["epsilon"]},
    ),
    **{
        name: Operator(op, nothing, nothing)
        for name, op in {
            **{name: name for name in ("relu", "sigmoid", "tanh", "softsign", "exp", "square")},
            "sqrt": "sqrt",
            "abs": "absolute",
        }.items()
    },
}
"""Mapping from the name of an MXNet operator to its `Operator`.

`find_operator` knows four more names, for which the operation depends on attributes."""

WRITTEN: dict[tuple[str, bool], tuple[str, Operator]] = {
    (operator.op, bool(wide)): (name, operator)
    for wide, names in (
        (False, "Convolution BatchNorm FullyConnected elemwise_add elemwise_mul elemwise_sub "
                "elemwise_div Dropout Flatten Reshape identity Concat SliceChannel slice_axis "
                "transpose expand_dims squeeze sum mean tile softmax clip hard_sigmoid "
                "L2Normalization relu sigmoid tanh softsign exp square sqrt abs"),
        (True, "broadcast_add broadcast_mul broadcast_sub broadcast_div broadcast_maximum "
               "broadcast_minimum"),
    )
    for name in names.split()
    for operator in (OPERATORS[name],)
}  # fmt: skip
"""Mapping from (operation, whether its inputs are broadcast) to the pair (name of the MXNet
operator, `Operator`)."""
WRITTEN |= {(op.op, False): ("LeakyReLU", op) for op in LEAKY.values()}
WRITTEN |= {
    (op, False): ("Activation", _activation(kind))
    for kind, op in {"relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh",
                     "softrelu": "softplus", "softsign": "softsign"}.items()
}  # fmt: skip
WRITTEN |= {("pool", False): ("Pooling", POOL), ("global_pool", False): ("Pooling", GLOBAL_POOL)}


def find_operator(name: str, attributes: Attributes) -> Operator | None:
    """Return the `Operator` for an MXNet operator; None if no operation of a `Graph` fits it."""
    if name in ("Pooling", "Pooling_v1"):
        return GLOBAL_POOL if attributes.get("global_pool", False) else POOL
    if name == "LeakyReLU":
        return LEAKY.get(attributes.get("act_type", "leaky"))
    if name == "Activation":
        kind = attributes.get("act_type")
        known = ("relu", "sigmoid", "tanh", "softrelu", "softsign")
        return _activation(kind) if kind in known else None
    return OPERATORS.get(name)
