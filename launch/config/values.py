# SPDX-License-Identifier: Apache-2.0
"""Convert YAML values to the declared types of settings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from launch.config.duration import Duration
from launch.config.paths import KEYS_WITHOUT_EMPTY_PATH, PATH_KEYS, expand_home
from suggestions import question, suggest

if TYPE_CHECKING:
    from ranges import Setting

EXPONENT_NUMBER = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+"
"""Regular expression for a number with an exponent in YAML 1.2."""
MAX_EXACT_WHOLE_NUMBER = 2.0**53
"""Largest number up to which float64 represents every whole number."""
VARIABLE = r"\$\{(\w+)\}"


def read_value(declared: Setting, value: Any, where: str, problems: list[str]) -> Any:
    """Convert a YAML value to the type of its setting, or append an error message to ``problems``.

    Parameters
    ----------
    declared
        Setting that declares the type and the range of the value.
    value
        Value from the YAML parser.  A list with one entry may be written as the bare entry.
    where
        Key of the value as ``section.key``; each error message starts with the key.
    problems
        List of error messages, changed in place.

    Outputs
    -------
    The converted value; None if the value is invalid.
    """
    if declared.entry:
        entries = value if isinstance(value, list) else [value]
        named = [f"{where}[{i}]" for i in range(len(entries))] if entries is value else [where]
        pairs = zip(entries, named, strict=True)
        return [read_value(declared.entry, entry, name, problems) for entry, name in pairs]
    if declared.mapped and isinstance(value, dict):
        return _read_mapping(declared.mapped, value, where, problems)
    try:
        if declared.kind is Duration:
            return Duration.parse(value)
        if declared.kind in (float, int):
            value = _read_number(declared.kind, value)
        if problem := declared.problem(value):
            raise ValueError(problem)
        if declared.kind is not str:
            return value
        before, key = len(problems), where.partition("[")[0]
        text = _expand_variables(value, where, problems)
        if key in KEYS_WITHOUT_EMPTY_PATH and not text.strip() and len(problems) == before:
            lists = "" if key in ("run.dir", "data.remote_cache") else f", or {key}=[] for none"
            raise ValueError(f"must be a path, got {value!r}; write a path{lists}")
        return expand_home(text) if key in PATH_KEYS else text
    except ValueError as error:
        problems.append(f"{where}: {error}")
        return None


def _read_mapping(
    declared: Setting, raw: dict[Any, Any], where: str, problems: list[str]
) -> dict[str, Any]:
    """Convert each value of a mapping to the type of the setting ``declared``."""
    found = {}
    for name, value in raw.items():
        if not isinstance(name, str):
            problems.append(f"{where}: each name must be text, got {name!r}; write it in quotes")
        elif value is None:  # YAML reads {head:10} as the name 'head:10' without a value
            problems.append(
                f"{where}: each name needs a value, got only {name!r}; write a blank after the "
                "colon, as in {head: 10}"
            )
        else:
            found[name] = read_value(declared, value, f"{where}.{name}", problems)
    return found


def name_hint(word: Any, known: Iterable[Any], prefix: str = "") -> str:
    """Return a hint for an unknown name: the probable known names, or else all known names.

    ``prefix`` precedes each name in the hint.
    """
    names = [str(name) for name in known]
    found = suggest(word, names)
    if found:
        return f"; {question([prefix + name for name in found])}"
    return f"; known: {', '.join(prefix + name for name in names) or 'none'}"


def _read_number(kind: type, value: Any) -> Any:
    """Convert a YAML value to the number that YAML 1.2 reads, for a setting of type float or int.

    PyYAML implements YAML 1.1, which reads a number with an exponent as text, unless the number has
    a dot and the exponent has a sign: 1e-3, 1.5e3 and 1e6 are text.  A setting of type int accepts
    such a number if the number is whole.  Other values are returned unchanged.
    """
    number = value
    if isinstance(value, str) and re.fullmatch(EXPONENT_NUMBER, value) and len(value) <= 40:
        number = float(value)
    if kind is float:
        return float(number) if type(number) is int else number
    whole = type(number) is float and number.is_integer() and abs(number) <= MAX_EXACT_WHOLE_NUMBER
    return int(number) if whole else value


def _expand_variables(text: str, where: str, problems: list[str]) -> str:
    """Replace each ``${NAME}`` in ``text`` by the value of the environment variable NAME.

    For each variable that is not set, append an error message to ``problems``.
    """
    problems.extend(
        f"{where}: the environment variable {name} is not set, got {text!r}; "
        f"set it in the command: {name}=... horovodrun ..."
        for name in re.findall(VARIABLE, text)
        if name not in os.environ
    )
    return re.sub(VARIABLE, lambda match: os.environ.get(match[1], ""), text)
