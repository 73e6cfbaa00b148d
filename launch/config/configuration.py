# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: how it is built from nested mappings, and its one clear error.

A YAML key, a dataclass field (launch/config/sections.py), a keyword argument and a log key are the
same word.  The sections ``net`` and ``head`` have no dataclass: their keys are the keyword-only
arguments of the builders, which are handed in, so that nothing here imports a network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from launch.config.duration import Duration
from launch.config.sections import (
    DataConfig,
    EvalConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
    section_settings,
)
from launch.config.values import name_hint, read_value
from ranges import Builders, cross_problems, settings

# What may differ between a run and its resumption: it does not change the weights.
FREE_ON_RESUME = {
    "run.name",
    "run.dir",
    "run.resume",
    "data.threads",
    "data.workers",
    "data.prefetch",
    "data.decoded_cache_mib",
    "data.batch_size",
    "train.log_every",
    "train.keep_checkpoints",
    "eval.batch_size",
}


class ConfigError(ValueError):
    """A configuration that cannot run; the message lists every problem found."""


@dataclass(frozen=True)
class Choice:
    """A name out of a dictionary of builders, and the keyword arguments for its builder."""

    name: str
    options: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


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
        return {f.name: _plain_section(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def defaults(self) -> dict[str, dict[str, Any]]:
        """Return the default of every key as plain values, of net and head those chosen."""
        sections = (getattr(self, f.name) for f in dataclasses.fields(self))
        defaults = (
            Choice(s.name, s.defaults) if isinstance(s, Choice) else type(s)() for s in sections
        )
        names = (f.name for f in dataclasses.fields(self))
        return {n: _plain_section(value) for n, value in zip(names, defaults, strict=True)}


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> list[str]:
    """Return ``section.key: old -> new`` for what a resumed run may not change.

    Parameters
    ----------
    old, new
        Plain values of the kept configuration and of this one (`Config.to_dict`).
    defaults
        What a key stands for that the kept configuration lacks, since it was added later
        (`Config.defaults`).
    """
    found: list[str] = []
    for section in sorted({*old, *new}):
        a = {**(defaults or {}).get(section, {}), **old.get(section, {})}
        b = new.get(section, {})
        found.extend(
            f"{section}.{key}: {a.get(key)!r} -> {b.get(key)!r}"
            for key in sorted({*a, *b})
            if f"{section}.{key}" not in FREE_ON_RESUME and a.get(key) != b.get(key)
        )
    return found


def build_config(raw: Any, nets: Builders, heads: Builders, where: str = "config") -> Config:
    """Build a Config from nested mappings.

    Parameters
    ----------
    raw
        ``{section: {key: value}}`` as YAML gives it.
    nets, heads
        Builders by name; their keyword-only arguments are the section's keys.
    where
        What the error names: the file.

    Raises
    ------
    ConfigError
        With all problems at once.
    """
    kinds = get_type_hints(Config)
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected sections ({', '.join(kinds)}), got {raw!r}")
    problems: list[str] = [
        f"{name}: unknown section{name_hint(name, kinds)}" for name in raw if name not in kinds
    ]
    built: dict[str, Any] = {}
    for name, kind in kinds.items():
        value = raw.get(name)
        value = {} if value is None else value
        if not isinstance(value, dict):
            problems.append(f"{name}: expected a section (key: value lines), got {value!r}")
        elif kind is Choice:
            built[name] = _choice(name, value, nets if name == "net" else heads, problems)
        else:
            built[name] = _section(kind, name, value, problems)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError(f"{where}: {count}\n" + "\n".join(f"  {p}" for p in problems))
    return Config(**built)


def _section(kind: type, name: str, raw: dict[str, Any], problems: list[str]) -> Any:
    declared = section_settings(kind)
    values, before = {}, len(problems)
    for key, value in raw.items():
        if key not in declared:
            problems.append(f"{name}.{key}: unknown key{name_hint(key, declared)}")
            continue
        values[key] = read_value(declared[key], value, f"{name}.{key}", problems)
    if len(problems) > before:
        return None
    built = kind(**values)
    check = getattr(built, "check", tuple)  # a section without rules between its keys has none
    problems += [f"{name}.{key}: {text}" for key, text in check()]
    return built


def _choice(section: str, raw: dict[str, Any], builders: Builders, problems: list[str]) -> Any:
    raw = dict(raw)
    name = raw.pop("name", None)
    if name is None:
        problems.append(f"{section}.name: required, but missing; known: {', '.join(builders)}")
        return None
    if not isinstance(name, str) or name not in builders:
        problems.append(
            f"{section}.name: must be one of the known names, got {name!r}"
            + name_hint(name, builders)
        )
        return None
    declared = settings(builders[name])
    defaults = {key: each.default for key, each in declared.items()}
    options, before = dict(defaults), len(problems)
    for key, value in raw.items():
        if key not in declared:
            problems.append(f"{section}.{key}: unknown key for {name!r}{name_hint(key, declared)}")
            continue
        options[key] = read_value(declared[key], value, f"{section}.{key}", problems)
    if len(problems) == before:
        problems += [
            f"{section}.{key}: {text}" for key, text in cross_problems(builders[name], options)
        ]
    return Choice(name, options, defaults)


def _plain_section(section: Any) -> dict[str, Any]:
    if isinstance(section, Choice):
        return {"name": section.name, **section.options}
    return {f.name: plain(getattr(section, f.name)) for f in dataclasses.fields(section)}


def plain(value: Any) -> Any:
    """Return a value of a section as YAML and JSON write it."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Duration) else value
