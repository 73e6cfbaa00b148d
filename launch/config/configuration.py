# SPDX-License-Identifier: Apache-2.0
"""Build the configuration of a run from nested mappings, and compare two configurations.

A YAML key, its dataclass field (launch/config/sections.py), its keyword argument and its log key
have the same name.  The sections ``net`` and ``head`` have no dataclass: their keys are the
keyword-only arguments of a builder, which is the function or class that builds the net or head.
Callers pass the builders, so that this module does not import MXNet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from launch.config.duration import Duration
from launch.config.section_settings import section_settings
from launch.config.sections import (  # noqa: TC001  get_type_hints(Config) reads these names
    DataConfig,
    EvalConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)
from launch.config.values import name_hint, read_value
from ranges import Builders, cross_problems, refusal, settings, shown

# Keys whose values may change when a run resumes, because the saved weights stay valid.
KEYS_FREE_ON_RESUME = {
    "run.name",
    "run.dir",
    "run.resume",
    "data.threads",
    "data.workers",
    "data.prefetch",
    "data.decoded_cache_mib",
    "data.remote_cache",
    "data.batch_size",
    "train.log_every",
    "train.keep_checkpoints",
    "eval.batch_size",
}

_MAX_PROBLEMS, _MAX_PROBLEM_CHARACTERS = 30, 1200  # limits of one ConfigError's message


_MAX_VALUE_CHARACTERS = 200  # longer values, such as the graph of a net, are shortened in messages


GRAPH_NET = "graph"
"""Value of net.name that selects the graph in the model file train.pretrained.

No builder has this name."""


class ConfigError(ValueError):
    """Error for an invalid configuration; the message lists every problem."""


@dataclass(frozen=True)
class Choice:
    """Choice of a net or a head: its name, and the keyword arguments of its builder.

    The names "" and GRAPH_NET of a net stand for the net of the model ``train.pretrained``.
    """

    name: str
    options: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    given: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Values that the YAML file or the command line sets, without "name"."""
    notice: str = field(default="", compare=False, repr=False)
    """Line for the log about dropped keys of the YAML file; empty if no key was dropped."""


@dataclass(frozen=True)
class Config:
    """Complete configuration of a run; only run_train.py and assemble/ receive this object."""

    run: RunConfig
    data: DataConfig
    net: Choice
    head: Choice
    optim: OptimConfig
    train: TrainConfig
    eval: EvalConfig

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines for the log about this configuration."""
        return tuple(filter(None, (self.net.notice, self.head.notice)))

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the values of all sections, defaults included, as YAML and JSON types."""
        return {f.name: _plain_section(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def defaults(self) -> dict[str, dict[str, Any]]:
        """Return the default of every key as YAML and JSON types.

        The sections ``net`` and ``head`` contain the defaults of the chosen net and head.
        """
        sections = (getattr(self, f.name) for f in dataclasses.fields(self))
        defaults = (
            Choice(s.name, s.defaults) if isinstance(s, Choice) else type(s)() for s in sections
        )
        names = (f.name for f in dataclasses.fields(self))
        return {n: _plain_section(value) for n, value in zip(names, defaults, strict=True)}


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> list[str]:
    """Return a line ``section.key: old -> new`` for each change that prevents a run from resuming.

    Parameters
    ----------
    old, new
        Configurations of the saved run and of this run, from `Config.to_dict`.
    defaults
        Values for keys that ``old`` lacks because a later version added them, from
        `Config.defaults`.
    """
    found: list[str] = []
    for section in sorted({*old, *new}, key=str):  # a damaged file may have keys of any type
        a = {**(defaults or {}).get(section, {}), **old.get(section, {})}
        b = new.get(section, {})
        found.extend(
            f"{section}.{key}: {_shortened(a.get(key))} -> {_shortened(b.get(key))}"
            for key in sorted({*a, *b}, key=str)
            if f"{section}.{key}" not in KEYS_FREE_ON_RESUME and a.get(key) != b.get(key)
        )
    return found


def build_config(raw: Any, nets: Builders, heads: Builders, where: str = "config") -> Config:
    """Build a Config from nested mappings.

    Parameters
    ----------
    raw
        ``{section: {key: value}}``, as a YAML parser returns it.
    nets, heads
        Dicts from the name of each net or head to its builder.  The keyword-only arguments of a
        builder are the keys of the section ``net`` or ``head``.
    where
        Name of the file, for the error message.

    Raises
    ------
    ConfigError
        If a section, key or value is invalid.  The message lists every problem.
    """
    kinds = get_type_hints(Config)
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected sections ({', '.join(kinds)}), got {shown(raw)}")
    problems: list[str] = [
        f"{name}: unknown section{name_hint(name, kinds)}" for name in raw if name not in kinds
    ]
    built: dict[str, Any] = {}
    for name, kind in kinds.items():
        value = raw.get(name)
        value = {} if value is None else value
        if not isinstance(value, dict):
            wanted = "expected a section with lines of the form `key: value`"
            problems.append(f"{name}: {wanted}, got {shown(value)}")
        elif kind is Choice and name == "net" and _takes_net(raw):
            given = {key: each for key, each in value.items() if key != "name"}
            built[name] = Choice(value.get("name") or "", {}, {}, given)
        elif kind is Choice:
            built[name] = read_choice(name, value, nets if name == "net" else heads, problems)
        else:
            built[name] = _section(kind, name, value, problems)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        lines = [f"  {problem[:_MAX_PROBLEM_CHARACTERS]}" for problem in problems[:_MAX_PROBLEMS]]
        if len(problems) > _MAX_PROBLEMS:
            lines.append(f"  and {len(problems) - _MAX_PROBLEMS} more")
        raise ConfigError("\n".join([f"{where}: {count}", *lines]))
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
    check = getattr(built, "check", tuple)  # some sections have no `check`
    problems += [f"{name}.{key}: {text}" for key, text in check()]
    return built


def _takes_net(raw: Mapping[str, Any]) -> bool:
    """Return whether the configuration uses the net of the model ``train.pretrained``.

    It does if ``train.pretrained`` is set, and ``net.name`` is not set or is GRAPH_NET.
    """
    net, train = raw.get("net") or {}, raw.get("train") or {}
    pretrained = isinstance(train, dict) and bool(train.get("pretrained"))
    return pretrained and net.get("name") in (None, "", GRAPH_NET)


def read_choice(
    section: str, raw: Mapping[str, Any], builders: Builders, problems: list[str]
) -> Any:
    """Return the `Choice` that a section describes, or None if its ``name`` is missing or invalid.

    Parameters
    ----------
    section
        "net" or "head".
    raw
        Values of the section, as a YAML parser returns them.
    builders
        Dict from the name of each net or head to its builder.
    problems
        List of error messages; the function appends one for each missing or invalid value.
    """
    raw = dict(raw)
    name = raw.pop("name", None)
    if name is None:
        hint = ", or set train.pretrained to use the net of a model" if section == "net" else ""
        problems.append(
            f"{section}.name: required, got none; use one of {', '.join(builders)}{hint}"
        )
        return None
    if section == "net" and name == GRAPH_NET:
        problems.append(
            f"net.name: {GRAPH_NET!r} selects the graph in a model file, got no train.pretrained; "
            "set train.pretrained to a model file"
        )
        return None
    if not isinstance(name, str) or name not in builders:
        problems.append(
            f"{section}.name: must be one of the known names, got {shown(name)}"
            + name_hint(name, builders)
        )
        return None
    declared = settings(builders[name])
    defaults = {key: each.default for key, each in declared.items()}
    options, before = dict(defaults), len(problems)
    for key, value in raw.items():
        if text := refusal(builders[name], name, key, value):
            problems.append(f"{section}.{key}: {text}")
            continue
        if key not in declared:
            problems.append(f"{section}.{key}: unknown key for {name!r}{name_hint(key, declared)}")
            continue
        options[key] = read_value(declared[key], value, f"{section}.{key}", problems)
    if len(problems) == before:
        problems += [
            f"{section}.{key}: {text}" for key, text in cross_problems(builders[name], options)
        ]
    return Choice(name, options, defaults, {key: options[key] for key in raw if key in options})


def _plain_section(section: Any) -> dict[str, Any]:
    if isinstance(section, Choice):
        return {"name": section.name, **section.options}
    return {f.name: to_plain(getattr(section, f.name)) for f in dataclasses.fields(section)}


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_VALUE_CHARACTERS else f"{text[:_MAX_VALUE_CHARACTERS]}..."


def to_plain(value: Any) -> Any:
    """Convert the value of a configuration key to types that YAML and JSON can store."""
    if isinstance(value, list):
        return [to_plain(v) for v in value]
    return str(value) if isinstance(value, Duration) else value
