# SPDX-License-Identifier: Apache-2.0
"""Convert the attributes of MXNet's operators to those of a `Graph`, and back."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

Attributes = Mapping[str, Any]
MAX_VALUE_CHARACTERS = 1000


class Unsupported(Exception):
    """An MXNet operator has settings that no operation of a `Graph` can express."""


def parse(text: Any) -> Any:
    """Convert an attribute, which MXNet stores as text, to a number, bool, tuple, None or text."""
    text = str(text).strip()
    if len(text) > MAX_VALUE_CHARACTERS or not re.match(r"[-+(\[\d.TFN]", text):
        return text
    try:
        value = ast.literal_eval(re.sub(r"(?<=\d)L\b", "", text))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    return tuple(value) if isinstance(value, list) else value


def pair(attributes: Attributes, name: str, default: int | None) -> tuple[int, int]:
    """Return an attribute (height, width); raise `Unsupported` if it is no pair."""
    value = attributes.get(name, ())
    if value in ((), None) and default is not None:
        return default, default
    if not isinstance(value, tuple) or len(value) != 2:
        raise Unsupported(f"{name} must be a pair")
    return int(value[0]), int(value[1])


def number(attributes: Attributes, name: str, default: float) -> float:
    """Return an attribute that is a number; raise `Unsupported` for any other value."""
    value = attributes.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unsupported(f"{name} must be a number")
    return value


def require(condition: bool, what: str) -> None:
    """Raise `Unsupported` with the text ``what`` if the condition is false."""
    if not condition:
        raise Unsupported(what)


def same(*names: str, **defaults: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return converters (read, write) of attributes with equal names in MXNet and in a `Graph`."""
    every = {**dict.fromkeys(names), **defaults}

    def read(attributes: Attributes) -> dict[str, Any]:
        return {name: attributes.get(name, default) for name, default in every.items()}

    def write(attributes: Attributes) -> dict[str, Any]:
        return {name: attributes[name] for name in every if attributes.get(name) is not None}

    return read, write


def renamed(
    names: Mapping[str, str], **defaults: Any
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return converters (read, write); ``names`` maps attribute names of a `Graph` to MXNet's."""

    def read(attributes: Attributes) -> dict[str, Any]:
        return {own: attributes.get(name, defaults.get(own)) for own, name in names.items()}

    def write(attributes: Attributes) -> dict[str, Any]:
        return {
            name: attributes[own]
            for own, name in names.items()
            if attributes.get(own) is not None or own == "end"
        }

    return read, write


def read_conv(attributes: Attributes) -> dict[str, Any]:
    """Convert the attributes of Convolution."""
    require(attributes.get("layout") in (None, "NCHW"), "layout")
    return {
        "kernel": pair(attributes, "kernel", None),
        "stride": pair(attributes, "stride", 1),
        "padding": pair(attributes, "pad", 0),
        "dilation": pair(attributes, "dilate", 1),
        "groups": int(number(attributes, "num_group", 1)),
    }


def write_conv(attributes: Attributes) -> dict[str, Any]:
    """Return the attributes of Convolution."""
    return {
        "kernel": attributes["kernel"],
        "stride": attributes["stride"],
        "pad": attributes["padding"],
        "dilate": attributes["dilation"],
        "num_group": attributes["groups"],
    }


def read_batch_norm(attributes: Attributes) -> dict[str, Any]:
    """Convert the attributes of BatchNorm."""
    require(attributes.get("axis", 1) == 1, "axis")
    require(not attributes.get("output_mean_var", False), "output_mean_var")
    return {
        "epsilon": number(attributes, "eps", 1e-3),
        "momentum": number(attributes, "momentum", 0.9),
        "fixed_scale": bool(attributes.get("fix_gamma", True)),
    }


def write_batch_norm(attributes: Attributes) -> dict[str, Any]:
    """Return the attributes of BatchNorm."""
    return {
        "eps": attributes["epsilon"],
        "momentum": attributes.get("momentum", 0.9),
        "fix_gamma": attributes.get("fixed_scale", False),
    }


def read_pool(attributes: Attributes) -> dict[str, Any]:
    """Convert the attributes of Pooling over windows."""
    kinds = {"max": "max", "avg": "average"}
    require(attributes.get("pool_type", "max") in kinds, "pool_type")
    require(attributes.get("pooling_convention", "valid") in ("valid", "full"), "convention")
    require(attributes.get("layout") in (None, "NCHW"), "layout")
    include = attributes.get("count_include_pad")
    return {
        "kind": kinds[attributes.get("pool_type", "max")],
        "kernel": pair(attributes, "kernel", None),
        "stride": pair(attributes, "stride", 1),
        "padding": pair(attributes, "pad", 0),
        "ceil_mode": attributes.get("pooling_convention", "valid") == "full",
        "include_padding": True if include is None else bool(include),
    }


def write_pool(attributes: Attributes) -> dict[str, Any]:
    """Return the attributes of Pooling over windows."""
    return {
        "pool_type": {"max": "max", "average": "avg"}[attributes["kind"]],
        "kernel": attributes["kernel"],
        "stride": attributes["stride"],
        "pad": attributes["padding"],
        "pooling_convention": "full" if attributes["ceil_mode"] else "valid",
        "count_include_pad": attributes["include_padding"],
    }


def read_global_pool(attributes: Attributes) -> dict[str, Any]:
    """Convert the attributes of a Pooling layer that pools over the whole feature map."""
    kinds = {"max": "max", "avg": "average", "sum": "sum"}
    require(attributes.get("pool_type", "max") in kinds, "pool_type")
    return {"kind": kinds[attributes.get("pool_type", "max")]}


def read_adaptive_pool(attributes: Attributes) -> dict[str, Any]:
    """Convert the attributes of AdaptiveAvgPooling2D, whose output must be one pixel."""
    require(attributes.get("output_size", ()) in (1, (), (1,), (1, 1)), "output_size")
    return {"kind": "average"}


def write_global_pool(attributes: Attributes) -> dict[str, Any]:
    """Return the attributes of Pooling over the whole feature map."""
    kind = {"average": "avg"}.get(attributes["kind"], attributes["kind"])
    return {"pool_type": kind, "global_pool": True, "kernel": (1, 1)}


def read_normalize(attributes: Attributes) -> dict[str, Any]:
    """Convert the attributes of L2Normalization."""
    mode = attributes.get("mode", "instance")
    require(mode in ("instance", "channel", "spatial"), "mode")
    return {"over": mode, "epsilon": number(attributes, "eps", 1e-10)}


def read_reshape(attributes: Attributes) -> dict[str, Any]:
    """Convert the attributes of Reshape; refuse MXNet's special codes below -1."""
    shape = attributes.get("shape", ())
    plain = (
        isinstance(shape, tuple)
        and shape
        and all(isinstance(side, int) and side >= -1 for side in shape)
    )
    require(bool(plain) and not attributes.get("reverse", False), "shape")
    return {"shape": shape}


def nothing(attributes: Attributes) -> dict[str, Any]:
    """Return {}, for an operation without attributes."""
    return {}
