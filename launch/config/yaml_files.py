# SPDX-License-Identifier: Apache-2.0
"""Find and read the YAML files of configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch.config.configuration import ConfigError
from launch.config.paths import NoHome, home_path
from plain_yaml import PlainYamlError, read_yaml_file

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def config_names() -> list[str]:
    """Return the names of the files in configs/, as ``--cfg`` accepts them."""
    return sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))


def find_config(name: str) -> Path:
    """Return the path of a configuration: an existing path, or the name of a file in configs/."""
    try:
        given = home_path(name)
    except NoHome as error:
        raise ConfigError(f"--cfg: {error}") from None
    for path in (given, CONFIGS / name):
        if path.is_file():
            return path
    known = ", ".join(config_names())
    raise ConfigError(
        f"--cfg: no such file, got {name!r}; give a path or a name in configs/: {known}"
    )


def read_yaml(path: Path) -> Any:
    """Parse a YAML file; raise ConfigError if it cannot be read or contains a syntax error."""
    try:
        return read_yaml_file(path) or {}
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read, got {error.strerror}; check the path and its permissions"
        ) from None
    except PlainYamlError as error:
        raise ConfigError(f"{path}: {error}") from None
