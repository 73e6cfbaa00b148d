# SPDX-License-Identifier: Apache-2.0
"""Parse the command line of run_train.py.

The command line is ``--cfg NAME.yaml [section.key=value ...]``, or an option such as ``--help``.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from launch.config.configuration import Config, ConfigError, build_config
from launch.config.default_data import add_default_records
from launch.config.help import help_text, listing
from launch.config.renamed import drop_keys_of_replaced
from launch.config.schema import schema_text
from launch.config.yaml_files import find_config, read_yaml
from launch.environment.provenance import version_line
from plain_yaml import PlainYamlError, parse_yaml
from ranges import shown

if TYPE_CHECKING:
    from ranges import Builders


class _Parser(argparse.ArgumentParser):
    """Argument parser that raises ConfigError instead of exiting.

    All ranks can then exit together with one error message.
    """

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"command line: {message}; use --cfg NAME.yaml [section.key=value ...]")


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of run_train.py; USAGE in launch/config/help.py lists the arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown or ``--cfg`` is missing.
    """
    parser = _Parser(prog="run_train.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--cfg")
    parser.add_argument("-h", "--help", nargs="?", const="")
    parser.add_argument("--list")
    parser.add_argument("--print-config", action="store_true")
    parser.add_argument("--print-schema", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args(list(argv))
    prints_text = arguments.help is not None or arguments.list is not None
    prints_text = prints_text or arguments.print_schema or arguments.version
    if arguments.cfg is None and not prints_text:
        parser.error("--cfg is required")
    return arguments


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of the configuration ``raw``, changed by overrides ``section.key=value``."""
    merged = {
        name: dict(value) if isinstance(value, dict) else value for name, value in raw.items()
    }
    for override in overrides:
        path, equals, text = override.partition("=")
        section, dot, key = path.partition(".")
        if not (equals and dot and section and key):
            raise ConfigError(f"command line: expected section.key=value, got {shown(override)}")
        try:
            value = parse_yaml(text) if text else ""
        except PlainYamlError:
            value = text
        if merged.get(section) is None:
            merged[section] = {}
        if not isinstance(merged[section], dict):
            wanted = "expected a section with lines of the form `key: value`"
            raise ConfigError(f"{section}: {wanted}, got {shown(merged[section])}")
        merged[section][key] = value
    return merged


def requested_text(argv: Sequence[str], nets: Builders, heads: Builders) -> str:
    """Return the text that a command line requests, such as the help; "" if it requests training.

    Parameters
    ----------
    argv
        Arguments without the name of the program.
    nets, heads
        Dicts from the name of each net or head to the function or class that builds it.

    Raises
    ------
    ConfigError
        If the argument of --help or --list is unknown, or if the configuration to print is
        invalid.
    """
    arguments = parse_arguments(argv)
    if arguments.version:
        return version_line()
    if arguments.help is not None:
        return help_text(arguments.help, nets, heads).rstrip()
    if arguments.list is not None:
        return listing(arguments.list, nets, heads)
    if arguments.print_schema:
        return schema_text(nets, heads).rstrip()
    if arguments.print_config:
        config = load_config(argv, nets, heads)
        notices = [f"# {notice}\n" for notice in config.notices]
        return "".join(notices) + yaml.safe_dump(config.to_dict(), sort_keys=False).rstrip()
    return ""


def load_config(argv: Sequence[str], nets: Builders, heads: Builders) -> Config:
    """Read the YAML file of a command line, apply its overrides and build the configuration.

    An override of ``net.name`` or ``head.name`` may replace the net or head that the YAML file
    chooses.  The keys of the file that apply only to the replaced one are then dropped, and
    `Config.notices` names them.

    Parameters
    ----------
    argv
        Arguments without the name of the program.
    nets, heads
        Dicts from the name of each net or head to its builder: the function or class that builds
        it.  The keyword-only arguments of a builder are the keys of the section ``net`` or
        ``head``.

    Raises
    ------
    ConfigError
        If the file cannot be read or the configuration is invalid.  The message lists every
        problem.
    """
    arguments = parse_arguments(argv)
    path = find_config(arguments.cfg)
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        wanted = "expected sections with lines of the form `key: value`"
        raise ConfigError(f"{path.name}: {wanted}, got {shown(raw)}")
    # In the config.yaml of a run folder, `notes` is no section: it states versions and commit.
    raw.pop("notes", None)
    raw, notices = drop_keys_of_replaced(
        raw, apply_overrides({}, arguments.overrides), {"net": nets, "head": heads}, path.name
    )
    raw = apply_overrides(raw, arguments.overrides)
    add_default_records(raw)
    run = raw.setdefault("run", {}) or {}
    if isinstance(run, dict) and not run.get("name"):
        raw["run"] = {**run, "name": path.stem}
    config = build_config(raw, nets, heads, where=path.name)
    for section, notice in notices.items():
        choice = dataclasses.replace(getattr(config, section), notice=notice)
        config = dataclasses.replace(config, **{section: choice})
    return config
