# SPDX-License-Identifier: Apache-2.0
"""Ranges of settings, declared as types: ``m2: Annotated[float, Within(0, 1.57, "in radians")]``.

The sections of the configuration, the nets and the heads declare their settings so. One
declaration gives the check, the sentence of its error, and the line of the help.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

__all__ = ["Setting", "Within", "above", "at_least", "setting", "settings"]


@dataclass(frozen=True)
class Within:
    """Numbers from ``low`` to ``high``, both allowed unless said otherwise.

    Parameters
    ----------
    low, high
        Bounds; infinite where there is none.
    advice
        What to do with another value: the end of the error's sentence.
    open_low, open_high
        Whether the bound itself is refused.
    """

    low: float
    high: float = math.inf
    advice: str = ""
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low or (value == self.low and not self.open_low)
        below = value < self.high or (value == self.high and not self.open_high)
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        parts = []
        if math.isfinite(self.low):
            parts.append(f"{'above' if self.open_low else 'from'} {self.low:g}")
        if math.isfinite(self.high):
            parts.append(f"{'below' if self.open_high else 'up to'} {self.high:g}")
        return " ".join(parts)


def above(low: float, advice: str = "") -> Within:
    """Return the range of numbers greater than ``low``."""
    return Within(low, advice=advice, open_low=True)


def at_least(low: float, advice: str = "") -> Within:
    """Return the range of numbers not less than ``low``."""
    return Within(low, advice=advice)


@dataclass(frozen=True)
class Setting:
    """One setting: a keyword-only argument or a field of a section."""

    name: str
    kind: Any
    """Type without its range: float, int, bool, str or a Literal."""
    range: Within | None
    default: Any

    @property
    def choices(self) -> tuple[Any, ...]:
        """Values of a Literal; empty for other types."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    def problem(self, value: Any) -> str:
        """Return what is wrong with a value, empty if nothing is."""
        if self.choices:
            if value in self.choices and not isinstance(value, bool):
                return ""
            return f"must be one of {', '.join(map(repr, self.choices))}, got {value!r}"
        if self.kind is bool:
            right = isinstance(value, bool)
            return "" if right else f"must be true or false, got {value!r}; write it without quotes"
        if self.kind not in (int, float):
            right = isinstance(value, self.kind)
            return "" if right else f"must be {self.kind.__name__}, got {value!r}"
        number = numbers.Integral if self.kind is int else numbers.Real
        right = isinstance(value, number) and not isinstance(value, bool)
        # Text is not converted: PyYAML reads 5e-4 as text, and so would hide a slip.
        if right and math.isfinite(value) and (self.range is None or value in self.range):
            return ""
        noun = "a whole number" if self.kind is int else "a number"
        text = f"must be {noun} {self.range or ''}".rstrip() + f", got {value!r}"
        return f"{text}; {self.range.advice}" if self.range and self.range.advice else text


def setting(name: str, annotation: Any, default: Any) -> Setting:
    """Return the setting of an annotation, ``Annotated`` with a `Within` or a plain type."""
    if get_origin(annotation) is Annotated:
        kind, *extra = get_args(annotation)
        return Setting(name, kind, next((e for e in extra if isinstance(e, Within)), None), default)
    return Setting(name, annotation, None, default)


def settings(builder: Callable[..., Any]) -> dict[str, Setting]:
    """Return the settings of a class or function: its keyword-only arguments, by name."""
    function = builder.__init__ if inspect.isclass(builder) else builder
    hints = get_type_hints(function, include_extras=True)
    return {
        p.name: setting(p.name, hints[p.name], p.default)
        for p in inspect.signature(builder).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
