# SPDX-License-Identifier: Apache-2.0
"""Values as YAML gives them, read as a setting declares them."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from launch.config.duration import Duration
from launch.config.paths import expand_home
from launch.config.sections import PATHS

if TYPE_CHECKING:
    from ranges import Setting

VARIABLE = r"\$\{(\w+)\}"


def read_value(declared: Setting, value: Any, where: str, problems: list[str]) -> Any:
    """Return one value as its setting declares it; append what is wrong, then return None.

    Parameters
    ----------
    declared
        The setting.
    value
        What YAML gives: one entry may stand for a list of one.
    where
        The key as ``section.key``, which begins each sentence.
    problems
        Sentences so far.
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
        return expand_home(text) if where.partition("[")[0] in PATHS else text
    except ValueError as error:
        problems.append(f"{where}: {error}")
        return None


def name_hint(word: Any, known: Iterable[Any]) -> str:
    """Return the end of a sentence about an unknown name: the nearest, or all known ones."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(str(word), names, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"


def _exponent_note(declared: Setting, value: Any) -> str:
    """Return what helps where YAML read a number without a dot, such as 5e-4, as text."""
    if declared.kind is not float or not isinstance(value, str):
        return ""
    try:
        return f" (YAML needs a dot before the exponent: write {float(value):.1e})"
    except ValueError:
        return ""


def _expand_variables(text: str, where: str, problems: list[str]) -> str:
    """Put environment variables in the place of ``${NAME}``."""
    problems.extend(
        f"{where}: the environment variable {name} is not set, got {text!r}; "
        f"run as {name}=... horovodrun ..."
        for name in re.findall(VARIABLE, text)
        if name not in os.environ
    )
    return re.sub(VARIABLE, lambda match: os.environ.get(match[1], ""), text)
