# SPDX-License-Identifier: Apache-2.0
"""Convert YAML values to the declared types of settings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from launch.config.duration import Duration
from launch.config.paths import expand_home
from launch.config.sections import PATH_KEYS
from suggestions import question, suggest

if TYPE_CHECKING:
    from ranges import Setting

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
    try:
        if declared.kind is Duration:
            return Duration.parse(value)
        if declared.kind is float and type(value) is int:
            value = float(value)
        if problem := declared.problem(value):
            raise ValueError(f"{problem}{_exponent_note(declared, value)}")
        if declared.kind is not str:
            return value
        text = _expand_variables(value, where, problems)
        return expand_home(text) if where.partition("[")[0] in PATH_KEYS else text
    except ValueError as error:
        problems.append(f"{where}: {error}")
        return None


def name_hint(word: Any, known: Iterable[Any], prefix: str = "") -> str:
    """Return a hint for an unknown name: the probable known names, or else all known names.

    ``prefix`` precedes each name in the hint.
    """
    names = [str(name) for name in known]
    found = suggest(word, names)
    if found:
        return f"; {question([prefix + name for name in found])}"
    return f"; known: {', '.join(prefix + name for name in names) or 'none'}"


def _exponent_note(declared: Setting, value: Any) -> str:
    """Return a hint if the value is a number that YAML reads as text, such as 5e-4; else ""."""
    if declared.kind is not float or not isinstance(value, str):
        return ""
    try:
        return f" (YAML needs a dot before the exponent: write {float(value):.1e})"
    except ValueError:
        return ""


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
