# SPDX-License-Identifier: Apache-2.0
"""Settings with ranges, declared as types: ``m2: Annotated[float, Within(0, 1.57, "in radians")]``.

The sections of the configuration, the nets and the heads declare their settings in this form. The
check, its error, the help and the JSON Schema are derived from the declaration.
"""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

__all__ = ["Setting", "Within", "above", "at_least", "checked_options", "setting", "settings"]

Builders = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Within:
    """Range of numbers from ``low`` to ``high``, by default inclusive.

    Parameters
    ----------
    low, high
        Bounds; infinite without a bound.
    advice
        Advice for a value outside, the end of the error.
    open_low, open_high
        Whether the range excludes the bound itself.
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
            parts.append(f"{'above' if self.open_low else 'from'} {_digits(self.low)}")
        if math.isfinite(self.high):
            word = ("to below" if parts else "below") if self.open_high else "up to"
            parts.append(f"{word} {_digits(self.high)}")
        return " ".join(parts)


def above(low: float, advice: str = "") -> Within:
    """Return the range of numbers greater than ``low``."""
    return Within(low, advice=advice, open_low=True)


def at_least(low: float, advice: str = "") -> Within:
    """Return the range of numbers not less than ``low``."""
    return Within(low, advice=advice)


@dataclass(frozen=True)
class Setting:
    """Setting of a builder or a section: a keyword-only argument or a field."""

    name: str
    kind: Any
    """Type without its range: float, int, bool, str, a Literal, a list of one of them, a class."""
    range: Within | None
    default: Any

    @property
    def choices(self) -> tuple[Any, ...]:
        """Values of a Literal; empty for other types."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def entry(self) -> Setting | None:
        """Setting of one entry of a list; None for other types."""
        listed = get_origin(self.kind) is list
        return setting(self.name, get_args(self.kind)[0], None) if listed else None

    @property
    def noun(self) -> str:
        """Type and range in words, for a sentence that begins with "must be"."""
        if self.choices:
            return f"one of {', '.join(map(repr, self.choices))}"
        if self.entry:
            return f"a list, each entry {self.entry.noun}"
        nouns = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
        noun = nouns.get(self.kind) or f"a {self.kind.__name__.lower()}"
        return f"{noun} {self.range}" if self.range else noun

    def problem(self, value: Any) -> str:
        """Return what is wrong with a value, or an empty string."""
        if self.entry and isinstance(value, list):
            return next(filter(None, map(self.entry.problem, value)), "")
        if self._accepts(value):
            return ""
        text = f"must be {self.noun}, got {value!r}"
        if self.choices:
            near = difflib.get_close_matches(str(value), map(str, self.choices), 1)
            return f"{text}; did you mean {near[0]!r}?" if near else text
        if self.kind is bool and isinstance(value, str):
            return f"{text}; write it without quotes"
        return f"{text}; {self.range.advice}" if self.range and self.range.advice else text

    def _accepts(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices and not isinstance(value, bool)
        if self.kind not in (int, float):
            return not self.entry and isinstance(value, self.kind)
        # Text is not converted to a number. PyYAML reads 5e-4 as text: the error shows this typo.
        number = numbers.Integral if self.kind is int else numbers.Real
        if isinstance(value, bool) or not isinstance(value, number) or not math.isfinite(value):
            return False
        return self.range is None or value in self.range


def setting(name: str, annotation: Any, default: Any) -> Setting:
    """Return the setting of an annotation, ``Annotated`` with a `Within` or a plain type."""
    if get_origin(annotation) is Annotated:
        kind, *extra = get_args(annotation)
        return Setting(name, kind, next((e for e in extra if isinstance(e, Within)), None), default)
    return Setting(name, annotation, None, default)


def settings(builder: Callable[..., Any]) -> dict[str, Setting]:
    """Return the settings of a function or class by name: its keyword-only arguments.

    A class whose constructor passes ``**kwargs`` on also has the settings of its base class, after
    its own: the base's arguments with a range, of a Literal or of bool. Other arguments of a base
    class are internal.
    """
    found: dict[str, Setting] = {}
    for function, inherited in _functions(builder):
        hints = get_type_hints(function, include_extras=True)
        for p in inspect.signature(function).parameters.values():
            public = p.kind is p.KEYWORD_ONLY and (not inherited or _is_public(hints[p.name]))
            if public and p.name not in found:
                found[p.name] = setting(p.name, hints[p.name], p.default)
    return found


def _functions(builder: Callable[..., Any]) -> Iterator[tuple[Callable[..., Any], bool]]:
    """Yield the function, or the constructors that the arguments reach; and whether inherited."""
    if not inspect.isclass(builder):
        yield builder, False
        return
    for owner in inspect.getmro(builder):
        if constructor := vars(owner).get("__init__"):
            yield constructor, owner is not builder
            parameters = inspect.signature(constructor).parameters.values()
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                return


def _is_public(annotation: Any) -> bool:
    return annotation is bool or get_origin(annotation) in (Annotated, Literal)


def cross_problems(
    builder: Callable[..., Any], options: Mapping[str, Any]
) -> Iterable[tuple[str, str]]:
    """Return (key, sentence) for settings that exclude each other.

    The optional static method ``problems`` of a builder yields them from all settings.
    """
    find = getattr(builder, "problems", None)
    defaults = {name: each.default for name, each in settings(builder).items()}
    return find({**defaults, **options}) if find else ()


def checked_options(
    section: str, name: str, builders: Builders, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of a builder after a check, with numbers converted to the declared type.

    Parameters
    ----------
    section
        "net" or "head", the first word of the error.
    name
        Name of the builder.
    builders
        Builders by name.
    options
        Keyword arguments for it.

    Raises
    ------
    ValueError
        If the name or an option is unknown, or a value is out of its range.
    """
    if name not in builders:
        near = difflib.get_close_matches(str(name), builders, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(builders)
        raise ValueError(f"{section}.name: unknown {section} {name!r}; {hint}known: {known}")
    declared = settings(builders[name])
    for key in options:
        if key not in declared:
            known = ", ".join(declared)
            raise ValueError(
                f"{section}.{key}: unknown setting of {section} {name!r}; known: {known}"
            )
    for key, text in _problems(builders[name], declared, options):
        raise ValueError(f"{section}.{key}: {text}")
    numeric = {key for key in options if declared[key].kind in (int, float)}
    return {k: declared[k].kind(v) if k in numeric else v for k, v in options.items()}


def _problems(
    builder: Callable[..., Any], declared: Mapping[str, Setting], options: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    for key, value in options.items():
        if text := declared[key].problem(value):
            yield key, text
    yield from cross_problems(builder, options)


def _digits(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"
