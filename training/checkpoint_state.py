# SPDX-License-Identifier: Apache-2.0
"""Check the content of a checkpoint's state.json before anything uses it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_MAX_COUNT = 10**18
_MAX_SIDE_PIXELS = 65_535
_PROGRESS = ("step", "images", "epoch", "consumed")


def find_fault(state: Mapping[str, Any]) -> str:
    """Return what is wrong with the content of state.json, as "<problem>, got <value>".

    The result is "" if nothing is wrong.  Missing keys are no fault.
    """
    meta = state.get("meta", {"image_size": [1, 1], "net": {"name": ""}})
    if not isinstance(meta, dict):
        return f"must describe the network under 'meta', got {_shown(meta)}"
    return (
        _size_fault(meta.get("image_size"))
        or _net_fault(meta.get("net"))
        or _number_fault(meta)
        or _progress_fault(state)
    )


def _size_fault(size: Any) -> str:
    sides = size if isinstance(size, list) else []
    if len(sides) != 2 or not all(_is_count(n) and 0 < n <= _MAX_SIDE_PIXELS for n in sides):
        return f"must have meta.image_size = [height, width] in pixels, got {_shown(size)}"
    return ""


def _net_fault(net: Any) -> str:
    if not isinstance(net, dict) or not isinstance(net.get("name"), str):
        return f"must have the name and the options of the net under meta.net, got {_shown(net)}"
    return ""


def _number_fault(meta: Mapping[str, Any]) -> str:
    for name in ("mean", "std"):
        value = meta.get(name, 1.0)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or (name == "std" and value <= 0):
            low = " above 0" if name == "std" else ""
            return f"must have a finite number{low} as meta.{name}, got {_shown(value)}"
    return ""


def _progress_fault(state: Mapping[str, Any]) -> str:
    progress = state.get("progress", {})
    if not isinstance(progress, dict) or not {*progress} <= {*_PROGRESS}:
        return (
            f"must have only the counts {', '.join(_PROGRESS)} in progress, got {_shown(progress)}"
        )
    counts = {f"progress.{name}": value for name, value in progress.items()}
    images = ("epoch_images", "end_images", "step_images")
    counts |= {name: state[name] for name in images if name in state}
    for name, value in counts.items():
        if not _is_count(value):
            return f"must have a whole number from 0 as {name}, got {_shown(value)}"
    if not isinstance(state.get("data", {}), dict):
        return f"must have a mapping as data, got {_shown(state['data'])}"
    return ""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT


def _shown(value: Any) -> str:
    return str(value)[:80] if isinstance(value, float) else repr(value)[:80]
