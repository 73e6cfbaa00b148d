# SPDX-License-Identifier: Apache-2.0
"""Generate the help of run_train.py from the declarations of the settings."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_type_hints

import yaml

from launch.config.configuration import Choice, Config, ConfigError, to_plain
from launch.config.docstrings import docstring_parts, field_docs, parameter_docs, summary
from launch.config.section_settings import section_settings
from launch.config.values import name_hint
from launch.config.yaml_files import CONFIGS, config_names
from ranges import Builders, Setting, settings

USAGE = """\
run_train.py --cfg NAME.yaml [section.key=value ...]      train
run_train.py --cfg NAME.yaml [...] --print-config         print the resolved configuration as YAML
run_train.py --help [SECTION | SECTION.KEY | net.NAME | head.NAME]
run_train.py --list nets | heads | configs                print the names with a short description
run_train.py --print-schema                               print the JSON Schema of the YAML files
run_train.py --version                                    print the version and the commit

Train a face-recognition network on record files and verify it. NAME.yaml is a path or the name of a
file in configs/. Overrides have YAML syntax: data.batch_size=64 optim.lr=1e-3 eval.sets=FOLDER. A
list needs quotes in a shell: 'eval.sets=[a.bin, b.bin]'. An override of net.name or head.name drops
the keys of NAME.yaml that the new net or head does not have.
"""
WIDTH = 100


def help_text(topic: str, nets: Builders, heads: Builders) -> str:
    """Return the help for one topic, or the complete help if the topic is "".

    Raises
    ------
    ConfigError
        If the topic is not a section, key, net or head.
    """
    kinds = get_type_hints(Config)
    builders = {"net": nets, "head": heads}
    if not topic:
        return "\n".join([USAGE, *(_section(name, kinds[name], builders) for name in kinds)])
    if topic in kinds:
        return _section(topic, kinds[topic], builders)
    section, _, key = topic.partition(".")
    if section in builders and key in builders[section]:
        return _builder(topic, section, builders[section][key])
    known = list(kinds)
    if section in builders:
        known = list(builders[section])
    elif section in kinds:
        declared = section_settings(kinds[section])
        if key in declared:
            docs = field_docs(kinds[section])
            return "\n".join(_setting(f"{section}.{key}", declared[key], docs))
        known = list(declared)
    prefix = f"{section}." if section in kinds else ""
    hint = name_hint(key if prefix else topic, known, prefix)
    raise ConfigError(f"--help: no such topic, got {topic!r}{hint}")


def listing(what: str, nets: Builders, heads: Builders) -> str:
    """List all nets, heads or configurations: each name with a one-line description.

    Parameters
    ----------
    what
        "nets", "heads" or "configs".

    Raises
    ------
    ConfigError
        If ``what`` is none of these three words.
    """
    lists: dict[str, Callable[[], Mapping[str, str]]] = {
        "nets": lambda: {name: summary(builder) for name, builder in nets.items()},
        "heads": lambda: {name: summary(builder) for name, builder in heads.items()},
        "configs": lambda: {name: _first_comment(name) for name in config_names()},
    }
    if what not in lists:
        raise ConfigError(f"--list: no such list, got {what!r}{name_hint(what, lists)}")
    found = lists[what]()
    width = max(map(len, found), default=0)
    return "\n".join(f"{name:{width}}  {text}".rstrip() for name, text in found.items())


def _first_comment(config: str) -> str:
    with open(CONFIGS / config, encoding="utf-8") as file:
        return file.readline().strip("# \n")


def _section(name: str, kind: type, builders: Mapping[str, Builders]) -> str:
    if kind is not Choice:
        docs = field_docs(kind)
        lines = [f"{name}: {summary(kind)}"]
        for key, each in section_settings(kind).items():
            lines += _setting(f"{name}.{key}", each, docs)
        return "\n".join([*lines, ""])
    lines = [
        f"{name}: keys and defaults for each {name}.name; --help {name}.NAME describes the keys."
    ]
    for choice, builder in builders[name].items():
        lines += _wrapped(f"{name}.name={choice}: {summary(builder)}", 2)
        keys = (f"{name}.{key}={_yaml(s.default)}" for key, s in settings(builder).items())
        lines += _wrapped(" ".join(keys), 6)
    return "\n".join([*lines, ""])


def _builder(topic: str, section: str, builder: Callable[..., Any]) -> str:
    parts = docstring_parts(builder)
    lines = [f"{topic}: {parts['']}", ""]
    docs = parameter_docs(builder)
    for key, each in settings(builder).items():
        lines += _setting(f"{section}.{key}", each, docs)
    if "Notes" in parts:
        lines += ["", parts["Notes"].strip()]
    return "\n".join(lines)


def _setting(key: str, each: Setting, docs: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of help for one key: its type, range, default and docstring."""
    advice = f" ({each.range.advice})" if each.range and each.range.advice else ""
    yield from _wrapped(f"{key}: {each.noun}{advice}; default {_yaml(each.default)}", 2, 6)
    yield from _wrapped(docs.get(each.name, ""), 6)


def _wrapped(text: str, indent: int, rest: int | None = None) -> list[str]:
    first, others = " " * indent, " " * (indent if rest is None else rest)
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=others)


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(to_plain(value), default_flow_style=True, width=1000)
    return text.strip().removesuffix("...").strip()
