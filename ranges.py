# SPDX-License-Identifier: Apache-2.0
"""Declare settings with ranges as types: ``m2: Annotated[float, Within(0, 1.57, "in radians")]``.

The sections of the configuration, the nets and the heads declare their settings in this form. The
range check, its error message, the help text and the JSON Schema are derived from the declaration.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from suggestions import listed, question, suggest

__all__ = [
    "Setting",
    "Within",
    "above",
    "at_least",
    "checked_options",
    "setting",
    "settings",
    "shown",
]

_SHOWN_CHARACTERS = 200

Builders = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Within:
    """Range of numbers from ``low`` to ``high``, by default including both bounds.

    Parameters
    ----------
    low, high
        Bounds of the range; an infinite value means that the range has no such bound.
    advice
        Advice for the user, which ends the error message about a value outside the range.
    open_low, open_high
        Whether the range excludes ``low`` or ``high`` itself.
    """

    low: float
    high: float = math.inf
    advice: str = ""
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low or (value == self.low and not self.open_low)
        below = value < self.high or (value == self.high and not self.open_high)
        return above and below and _is_finite(value)

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
    """Return the range of numbers greater than or equal to ``low``."""
    return Within(low, advice=advice)


@dataclass(frozen=True)
class Setting:
    """One setting: a keyword-only argument of a net or head, or a field of a config section."""

    name: str
    kind: Any
    """Type without range: float, int, bool, str, Literal, a list of one of these, a dict from str
    to one of these, or a class."""
    range: Within | None
    default: Any

    @property
    def choices(self) -> tuple[Any, ...]:
        """Allowed values if the type is a Literal; an empty tuple for other types."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def entry(self) -> Setting | None:
        """Setting that describes one list entry if the type is a list; None for other types."""
        listed = get_origin(self.kind) is list
        return setting(self.name, get_args(self.kind)[0], None) if listed else None

    @property
    def mapped(self) -> Setting | None:
        """Setting that describes one value if the type is a dict; None for other types."""
        mapping = get_origin(self.kind) is dict
        return setting(self.name, get_args(self.kind)[1], None) if mapping else None

    @property
    def noun(self) -> str:
        """Type and range as words that complete the sentence "must be ..."."""
        if self.choices:
            return f"one of {', '.join(map(repr, self.choices))}"
        if self.entry:
            return f"a list, each entry {self.entry.noun}"
        if self.mapped:
            return f"a mapping from names, each value {self.mapped.noun}"
        nouns = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
        noun = nouns.get(self.kind) or f"a {self.kind.__name__.lower()}"
        return f"{noun} {self.range}" if self.range else noun

    def problem(self, value: Any) -> str:
        """Check a value; return an empty string if it is valid, else the text of the error message.

        The text has the form "must be ..., got ..." and may end with advice.
        """
        if self.entry and isinstance(value, list):
            return next(filter(None, map(self.entry.problem, value)), "")
        if self.mapped and isinstance(value, dict):
            return next(filter(None, map(self.mapped.problem, value.values())), "")
        if self._accepts(value):
            return ""
        text = f"must be {self.noun}, got {shown(value)}"
        if self.choices:
            hint = question(suggest(value, self.choices))
            return f"{text}; {hint}" if hint else text
        if self.kind is bool and isinstance(value, str):
            return f"{text}; write it without quotes"
        return f"{text}; {self.range.advice}" if self.range and self.range.advice else text

    def _accepts(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices and not isinstance(value, bool)
        if self.kind not in (int, float):
            return not (self.entry or self.mapped) and isinstance(value, self.kind)
        # Refuse every string, even if it looks like a number: launch/config/values.py has already
        # converted the strings that are numbers in YAML 1.2.
        number = numbers.Integral if self.kind is int else numbers.Real
        if isinstance(value, bool) or not isinstance(value, number) or not _is_finite(value):
            return False
        return self.range is None or value in self.range


def setting(name: str, annotation: Any, default: Any) -> Setting:
    """Build the `Setting` for an annotation: a plain type, or ``Annotated`` with a `Within`."""
    if get_origin(annotation) is Annotated:
        kind, *extra = get_args(annotation)
        return Setting(name, kind, next((e for e in extra if isinstance(e, Within)), None), default)
    return Setting(name, annotation, None, default)


def refusal(builder: Callable[..., Any], name: str, key: str, value: Any) -> str:
    """Return the text of the error message for a setting that a net or head refuses.

    The attribute ``refused_settings`` of a builder maps each such setting to a reason. The text is
    empty if the attribute does not contain the setting.
    """
    reason = getattr(builder, "refused_settings", {}).get(key)
    return f"not available for {name!r}, got {value!r}; {reason}" if reason else ""


def settings(builder: Callable[..., Any]) -> Mapping[str, Setting]:
    """Return the keyword-only arguments of a function or class as settings, keyed by name.

    If the constructor of a class passes ``**kwargs`` on, the settings include those of the base
    class: its keyword-only arguments that have a range, a Literal type or the type bool. All other
    arguments of the base class are internal. The settings in the attribute ``refused_settings`` of
    a class are left out.
    """
    return _read_settings(builder)


# Cached: reading the annotations of a class takes a third of a millisecond.  The argument is Any,
# because mypy takes the class of a head for unhashable.
@cache
def _read_settings(builder: Any) -> Mapping[str, Setting]:
    found: dict[str, Setting] = {}
    refused = getattr(builder, "refused_settings", {})
    for function, inherited in _functions(builder):
        hints = get_type_hints(function, include_extras=True)
        for p in inspect.signature(function).parameters.values():
            public = p.kind is p.KEYWORD_ONLY and (not inherited or _is_public(hints[p.name]))
            if public and p.name not in found and p.name not in refused:
                found[p.name] = setting(p.name, hints[p.name], p.default)
    return MappingProxyType(found)


def _functions(builder: Callable[..., Any]) -> Iterator[tuple[Callable[..., Any], bool]]:
    """Yield the functions whose arguments are settings, as pairs (function, inherited).

    For a class these are its constructor and the constructors of its base classes, up to and
    including the first one without ``**kwargs``. ``inherited`` is True for a constructor of a base
    class.
    """
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
    """Return pairs (setting, message) for settings of a net or head that exclude each other.

    The static method ``problems`` of the builder yields these pairs, if the method exists. It gets
    the values of all settings, with defaults for those that ``options`` lacks.
    """
    find = getattr(builder, "problems", None)
    defaults = {name: each.default for name, each in settings(builder).items()}
    return find({**defaults, **options}) if find else ()


def checked_options(
    section: str, name: str, builders: Builders, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Check the options of a net or head; return them with numbers converted to declared types.

    Parameters
    ----------
    section
        "net" or "head"; the error message begins with this word.
    name
        Name of the net or head, a key of ``builders``.
    builders
        All builders of the section, keyed by name.
    options
        Keyword arguments for the builder.

    Raises
    ------
    ValueError
        If the name or an option is unknown, if a value is out of its range, or if options exclude
        each other.
    """
    if name not in builders:
        hint = listed(name, builders)
        raise ValueError(f"{section}.name: unknown {section} {name!r}; {hint}")
    declared = settings(builders[name])
    for key in options:
        if text := refusal(builders[name], name, key, options[key]):
            raise ValueError(f"{section}.{key}: {text}")
        if key not in declared:
            raise ValueError(
                f"{section}.{key}: unknown setting of {section} {name!r}; {listed(key, declared)}"
            )
    require_valid(section, builders[name], options)
    numeric = {key for key in options if declared[key].kind in (int, float)}
    return {k: declared[k].kind(v) if k in numeric else v for k, v in options.items()}


def require_valid(section: str, builder: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise ValueError if an option is out of its range or if two options exclude each other."""
    declared = settings(builder)
    for key, value in options.items():
        if text := declared[key].problem(value):
            raise ValueError(f"{section}.{key}: {text}")
    for key, text in cross_problems(builder, options):
        raise ValueError(f"{section}.{key}: {text}")


def shown(value: object) -> str:
    """Return the ``repr`` of a value for a message, shortened to about 200 characters."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print an int of more than 4300 digits
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else "a value"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _is_finite(value: Any) -> bool:
    # math.isfinite fails for whole numbers above the largest float.
    return isinstance(value, numbers.Integral) or math.isfinite(value)


def _digits(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"
