# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: how it is built from YAML, and its one clear error.

A YAML key, a dataclass field (launch/config/sections.py), a keyword argument and a log key are the
same word.  The sections ``net`` and ``head`` have no dataclass: their keys are the keyword
arguments of the builders, handed in as signatures, so that this module lists the choices without
importing a network.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from launch.config.duration import Duration
from launch.config.paths import NoHome, expand_home
from launch.config.sections import (
    PATHS,
    DataConfig,
    EvalConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)

Problems = list[str]
Signatures = Mapping[str, inspect.Signature]


class ConfigError(ValueError):
    """A configuration that cannot run; the message lists every problem found."""


@dataclass(frozen=True)
class Choice:
    """A name out of a dictionary of builders, and the keyword arguments for its builder."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Config:
    """The whole configuration; run_train.py and assemble/ alone see it."""

    run: RunConfig
    data: DataConfig
    net: Choice
    head: Choice
    optim: OptimConfig
    train: TrainConfig
    eval: EvalConfig

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the configuration as plain values, every default spelt out."""
        plain: dict[str, dict[str, Any]] = {}
        for section in dataclasses.fields(self):
            value = getattr(self, section.name)
            if isinstance(value, Choice):
                plain[section.name] = {"name": value.name, **value.options}
            else:
                plain[section.name] = {
                    f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)
                }
        return plain


# What may differ between a run and its resumption: it does not change the weights.
FREE_ON_RESUME = {
    *("run.name", "run.dir", "run.resume", "data.threads", "data.workers", "data.prefetch"),
    "data.decoded_cache_mib",
    *("data.batch_size", "train.log_every", "train.keep_checkpoints", "eval.batch_size"),
}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return ``section.key: old -> new`` for what a resumed run may not change."""
    found = []
    for section in sorted({*old, *new}):
        a, b = old.get(section, {}), new.get(section, {})
        for key in sorted({*a, *b}):
            if f"{section}.{key}" not in FREE_ON_RESUME and a.get(key) != b.get(key):
                found.append(f"{section}.{key}: {a.get(key)!r} -> {b.get(key)!r}")
    return found


def build_config(raw: Any, nets: Signatures, heads: Signatures, where: str = "config") -> Config:
    """Build a Config from nested mappings.

    Parameters
    ----------
    raw
        ``{section: {key: value}}`` as YAML gives it.
    nets, heads
        Signature of every builder by name; parameters with a default are the section's keys.
    where
        What the error names: the file.

    Raises
    ------
    ConfigError
        With all problems at once.
    """
    problems: Problems = []
    sections = {f.name: f for f in dataclasses.fields(Config)}
    hints = get_type_hints(Config)
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected sections ({', '.join(sections)}), got {raw!r}")
    for name in raw:
        if name not in sections:
            problems.append(f"{name}: unknown section{_hint(name, sections)}")
    built: dict[str, Any] = {}
    for name in sections:
        value = raw.get(name)
        value = {} if value is None else value
        if not isinstance(value, dict):
            problems.append(f"{name}: expected a section (key: value lines), got {value!r}")
        elif name in ("net", "head"):
            built[name] = _choice(name, value, nets if name == "net" else heads, problems)
        else:
            built[name] = _section(hints[name], name, value, problems)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError(f"{where}: {count}\n" + "\n".join(f"  {p}" for p in problems))
    return Config(**built)


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds; raise ConfigError with the place of a syntax error."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read, got {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{path}: not YAML, got: {text}; mend that line") from None


def _section(kind: type, name: str, raw: dict[str, Any], problems: Problems) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = get_type_hints(kind)
    values, before = {}, len(problems)
    for key, value in raw.items():
        if key not in fields:
            problems.append(f"{name}.{key}: unknown key{_hint(key, fields)}")
            continue
        values[key] = _value(hints[key], value, f"{name}.{key}", problems)
    if len(problems) > before:
        return None
    built = kind(**values)
    problems += [f"{name}.{key}: {text}" for key, text in built.check()]
    return built


def _choice(section: str, raw: dict[str, Any], known: Signatures, problems: Problems) -> Any:
    raw = dict(raw)
    name = raw.pop("name", None)
    if name is None:
        problems.append(f"{section}.name: required, but missing; known: {', '.join(known)}")
        return None
    if name not in known:
        problems.append(
            f"{section}.name: must be one of the known names, got {name!r}" + _hint(name, known)
        )
        return None
    # What stands before the `*` is not for users: the code that builds the head gives it.
    parameters = {p.name: p for p in known[name].parameters.values() if p.kind is p.KEYWORD_ONLY}
    options = {key: p.default for key, p in parameters.items()}
    for key, value in raw.items():
        if key not in parameters:
            problems.append(f"{section}.{key}: unknown key for {name!r}{_hint(key, parameters)}")
            continue
        default = parameters[key].default
        options[key] = _value(type(default), value, f"{section}.{key}", problems)
    return Choice(name, options)


def _value(hint: Any, value: Any, where: str, problems: Problems) -> Any:
    """Check one value against its type; append the problem and return None if it does not fit."""
    if get_origin(hint) is Literal:
        if value in get_args(hint) and not isinstance(value, bool):
            return value
        choices = ", ".join(repr(c) for c in get_args(hint))
        problems.append(
            f"{where}: must be one of {choices}, got {value!r}{_hint(value, get_args(hint), False)}"
        )
        return None
    if get_origin(hint) is list:
        entries = value if isinstance(value, list) else [value]
        inner = get_args(hint)[0]
        named = [f"{where}[{i}]" for i in range(len(entries))] if entries is value else [where]
        return [_value(inner, v, n, problems) for v, n in zip(entries, named, strict=True)]
    if hint is Duration:
        try:
            return Duration.parse(value)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            return None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{where}: must be a finite number, got {value}")
        return None
    if hint is str and isinstance(value, str):
        text = _expand(value, where, problems)
        return _expand_home(text, where, problems) if where.partition("[")[0] in PATHS else text
    if type(value) is hint:
        return value
    note = ""
    if isinstance(value, str) and hint in (int, float):
        try:
            number = float(value)
            note = f" (YAML needs a dot before the exponent: write {number:.1e})"
        except ValueError:
            note = ""
    problems.append(
        f"{where}: expected {hint.__name__}, got {type(value).__name__} {value!r}{note}"
    )
    return None


def _expand(text: str, where: str, problems: Problems) -> str:
    """Put environment variables in the place of ``${NAME}``."""
    for name in re.findall(r"\$\{(\w+)\}", text):
        if name not in os.environ:
            problems.append(
                f"{where}: the environment variable {name} is not set, got {text!r}; "
                f"run as {name}=... horovodrun ..."
            )
        text = text.replace(f"${{{name}}}", os.environ.get(name, ""))
    return text


def _expand_home(text: str, where: str, problems: Problems) -> str:
    """Put the home folder in the place of ``~``."""
    try:
        return expand_home(text)
    except NoHome as error:
        problems.append(f"{where}: {error}")
        return text


def _hint(word: Any, known: Any, listing: bool = True) -> str:
    near = difflib.get_close_matches(str(word), [str(k) for k in known], 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(str(k) for k in known)}" if listing else ""


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Duration) else value
