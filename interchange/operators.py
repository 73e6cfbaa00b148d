# SPDX-License-Identifier: Apache-2.0
"""Operators of a `Graph`: their inputs, tensors and attributes.

Every reader translates the operators of its format into these, and every writer translates these
into the operators of its format.  Feature maps have the layout (B, C, H, W): B images, C channels,
H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

REQUIRED = object()
"""Stands in `Operator.attributes` in the place of a default: every node states this attribute."""


class Operator(NamedTuple):
    """Signature of one operator."""

    inputs: int | None
    """Number of inputs; None: at least one."""
    tensors: tuple[str, ...] = ()
    """Roles of the parameters; a role that ends in "?" may be missing."""
    attributes: Mapping[str, Any] = {}
    """Mapping from the name of an attribute to its default, or to `REQUIRED`."""


_WINDOW = {"kernel": REQUIRED, "stride": (1, 1), "padding": (0, 0)}
_REDUCTION = {"axes": REQUIRED, "keepdims": False}
_SCALAR = {"scalar": REQUIRED}

OPERATORS: dict[str, Operator] = {
    # The tensor "value", with the shape that it has.
    "constant": Operator(0, ("value",)),
    # Layers.  weight: (C', C / groups, kernel height, kernel width), bias: (C',).  Pairs are
    # (vertical, horizontal); the padding is the same on both sides.
    "conv": Operator(1, ("weight", "bias?"), {**_WINDOW, "dilation": (1, 1), "groups": 1}),
    # gamma, beta, running_mean, running_var: (C,), along axis 1.  fix_gamma: gamma counts as 1.
    "batch_norm": Operator(
        1,
        ("gamma", "beta", "running_mean", "running_var"),
        {"epsilon": REQUIRED, "fix_gamma": False},
    ),
    "layer_norm": Operator(1, ("gamma", "beta"), {"axis": -1, "epsilon": REQUIRED}),
    # weight: (E, F), bias: (E,).  flatten: the input becomes (B, F) first; otherwise the layer
    # applies to the last axis of the input.
    "dense": Operator(1, ("weight", "bias?"), {"flatten": REQUIRED}),
    # slope: (C,), or (1,) for a slope shared by all channels.
    "prelu": Operator(1, ("slope",)),
    # kind: "max" or "avg".  ceil: the size of the output is rounded up ("full" in MXNet).
    "pool": Operator(
        1, (), {"kind": REQUIRED, **_WINDOW, "ceil": False, "count_include_pad": True}
    ),
    "global_pool": Operator(1, (), {"kind": REQUIRED}),  # (B, C, 1, 1)
    "upsample": Operator(1, (), {"scale": REQUIRED}),  # nearest neighbour, by a whole number
    # Functions of each value.
    **{
        name: Operator(1)
        for name in (
            *("relu", "sigmoid", "tanh", "softplus", "softsign", "gelu", "hard_swish"),
            *("sqrt", "square", "exp", "log", "abs", "erf", "negative"),
        )
    },
    "leaky_relu": Operator(1, (), {"slope": REQUIRED}),
    "elu": Operator(1, (), {"alpha": REQUIRED}),
    "hard_sigmoid": Operator(1, (), {"alpha": REQUIRED, "beta": REQUIRED}),
    "clip": Operator(1, (), {"minimum": REQUIRED, "maximum": REQUIRED}),  # relu6: 0 and 6
    # Arithmetic of two values whose shapes broadcast as in NumPy.
    **{name: Operator(2) for name in ("add", "sub", "mul", "div", "maximum", "minimum", "pow")},
    # Arithmetic with a number; rsub and rdiv have the number on the left.
    **{
        f"{name}_scalar": Operator(1, (), _SCALAR)
        for name in ("add", "sub", "rsub", "mul", "div", "rdiv", "pow", "maximum", "minimum")
    },
    # transpose_a and transpose_b exchange the last two axes of an operand.
    "matmul": Operator(2, (), {"transpose_a": False, "transpose_b": False}),
    "softmax": Operator(1, (), {"axis": -1}),
    # mode: "instance" (norm over all axes but the first), "channel" (over axis 1) or "last" (over
    # the last axis).  The norm is sqrt(sum of squares + epsilon).
    "l2_normalize": Operator(1, (), {"mode": "instance", "epsilon": 1e-10}),
    # axes: a tuple of axes.
    **{name: Operator(1, (), _REDUCTION) for name in ("mean", "sum", "norm", "max", "min")},
    # Shapes.
    "identity": Operator(1),
    "dropout": Operator(1, (), {"rate": 0.5}),  # identity in inference
    "flatten": Operator(1),  # (B, product of the other sizes)
    "reshape": Operator(1, (), {"shape": REQUIRED}),  # 0: size of the input, -1: the rest
    "transpose": Operator(1, (), {"axes": REQUIRED}),
    "expand_dims": Operator(1, (), {"axes": REQUIRED}),
    "squeeze": Operator(1, (), {"axes": REQUIRED}),
    "concat": Operator(None, (), {"axis": 1}),
    "slice": Operator(1, (), {"axis": REQUIRED, "begin": REQUIRED, "end": None}),
    "split": Operator(1, (), {"axis": REQUIRED, "sections": REQUIRED}),  # several outputs
    "tile": Operator(1, (), {"repeats": REQUIRED}),
    # padding: (top, bottom, left, right) of zeros around a feature map.
    "pad": Operator(1, (), {"padding": REQUIRED}),
}


def attribute(node_op: str, attributes: Mapping[str, Any], name: str) -> Any:
    """Return an attribute of a node, or its default.

    Raises
    ------
    KeyError
        If the operator has no such attribute, or if the attribute is required and missing.
    """
    value = attributes.get(name, OPERATORS[node_op].attributes[name])
    if value is REQUIRED:
        raise KeyError(name)
    return value
