# SPDX-License-Identifier: Apache-2.0
"""The command line of run_train.py: ``--cfg NAME.yaml [section.key=value ...]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from launch.config.configuration import Config, ConfigError, Signatures, build_config, read_yaml
from launch.config.paths import NoHome, home_path

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


class _Parser(argparse.ArgumentParser):
    """An argument parser whose faults are ConfigErrors, so that all ranks report them alike."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"command line: {message}; use --cfg NAME.yaml [section.key=value ...]")


def parse_arguments(argv: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the configuration file and the overrides that a command line names.

    Raises
    ------
    ConfigError
        If an argument is unknown or the file does not exist.
    """
    parser = _Parser(
        prog="run_train.py",
        description="Train a face-recognition network from record files and verify it.",
        epilog="Overrides: section.key=value, for example data.batch_size=64 train.max_steps=100.",
    )
    parser.add_argument(
        "--cfg", required=True, metavar="FILE", help="a YAML file: a path, else a name in configs/"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_intermixed_args(list(argv))
    return find_config(arguments.cfg), arguments.overrides


def find_config(name: str) -> Path:
    """Return the path of a configuration: the path itself if it exists, else under configs/."""
    try:
        given = home_path(name)
    except NoHome as error:
        raise ConfigError(f"--cfg: {error}") from None
    for path in (given, CONFIGS / name):
        if path.is_file():
            return path
    known = ", ".join(sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.yaml")))
    raise ConfigError(f"--cfg: no such file, got {name!r}; give a path or one of configs/: {known}")


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the sections with ``section.key=value`` put in; the values are read as YAML."""
    merged = {
        name: dict(value) if isinstance(value, dict) else value for name, value in raw.items()
    }
    for override in overrides:
        path, equals, text = override.partition("=")
        section, dot, key = path.partition(".")
        if not (equals and dot and section and key):
            raise ConfigError(f"command line: expected section.key=value, got {override!r}")
        try:
            value = yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            value = text
        if merged.get(section) is None:
            merged[section] = {}
        if not isinstance(merged[section], dict):
            raise ConfigError(f"{section}: expected a section, got {merged[section]!r}")
        merged[section][key] = value
    return merged


def load_config(argv: Sequence[str], nets: Signatures, heads: Signatures) -> Config:
    """Return the configuration that a command line asks for.

    Parameters
    ----------
    argv
        Arguments without the program's name.
    nets, heads
        Signatures of the builders by name (see launch/config/configuration.py).

    Raises
    ------
    ConfigError
        With all problems at once.
    """
    path, overrides = parse_arguments(argv)
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path.name}: expected sections with key: value lines, got {raw!r}")
    raw.pop("notes", None)  # the config.yaml of a run carries versions and commit
    raw = apply_overrides(raw, overrides)
    run = raw.setdefault("run", {}) or {}
    if isinstance(run, dict) and not run.get("name"):
        raw["run"] = {**run, "name": path.stem}
    return build_config(raw, nets, heads, where=path.name)
