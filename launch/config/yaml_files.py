# SPDX-License-Identifier: Apache-2.0
"""YAML files: where a configuration is found and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from launch.config.configuration import ConfigError
from launch.config.paths import NoHome, home_path

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def config_names() -> list[str]:
    """Return the configurations under configs/, as ``--cfg`` takes them."""
    return sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))


def find_config(name: str) -> Path:
    """Return the path of a configuration: the path itself if it exists, else under configs/."""
    try:
        given = home_path(name)
    except NoHome as error:
        raise ConfigError(f"--cfg: {error}") from None
    for path in (given, CONFIGS / name):
        if path.is_file():
            return path
    known = ", ".join(config_names())
    raise ConfigError(f"--cfg: no such file, got {name!r}; give a path or one of configs/: {known}")


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds; raise ConfigError with the place of a syntax error."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read, got {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{path}: not YAML, got: {text}; fix that line") from None
