# SPDX-License-Identifier: Apache-2.0
"""Arguments of run_train.py for a record set of the user: ``launch.local --data FOLDER``."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from launch.config.configuration import ConfigError
from launch.config.yaml_files import find_config
from launch.launchers.options import UsageError, format_count

CONFIG = "own.yaml"
"""Configuration in configs/ for own data, unless the user chooses another one."""
PREFIX = "own-"
"""Prefix of the names of runs on own data; no name of a file in configs/ has this prefix."""


def add_own_data(arguments: Sequence[str], data: str, caller: Path) -> tuple[list[str], str]:
    """Add the record set and the verification sets of a folder to arguments of run_train.py.

    Return the arguments, and a line that states the data and the recipe.

    Parameters
    ----------
    arguments
        Arguments of run_train.py; they override the added arguments.
    data
        Folder with train.rec, train.idx and property, and perhaps with .bin files.
    caller
        Folder to which a relative path refers.

    Raises
    ------
    UsageError
        If the folder does not exist, or if the configuration does not exist.
    """
    folder = Path(os.path.abspath(caller / os.path.expanduser(data)))
    if not (data and folder.is_dir()):
        raise UsageError(
            f"launch.local: --data must be an existing folder, got {data!r}; name the folder that "
            "contains train.rec, train.idx and property"
        )
    name = _chosen_config(arguments)
    config = [] if name else ["--cfg", CONFIG]
    sets = sorted(path.name for path in folder.glob("*.bin"))
    run = run_name(folder)
    added = [
        f"data.records={_yaml_text(folder)}",
        f"eval.sets={_yaml_text(folder) if sets else '[]'}",
        f"run.name={run}",
    ]
    line = (
        f"own data {folder}  {format_count(len(sets), 'verification set')}  run name {run}  "
        f"recipe {name or CONFIG}: {_purpose(name or CONFIG, caller)} (--cfg NAME.yaml or "
        "CFG=NAME.yaml selects another recipe)"
    )
    return [*config, *added, *arguments], line


def run_name(folder: Path) -> str:
    """Return the name of the runs on a folder; different folders have different names."""
    plain = re.sub(r"[^\w.-]+", "_", folder.name).strip("._") or "data"
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:6]
    return f"{PREFIX}{plain[:60]}-{digest}"


def _chosen_config(arguments: Sequence[str]) -> str:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument == "--cfg":
            return following
        if argument.startswith("--cfg="):
            return argument.removeprefix("--cfg=")
    return ""


def _purpose(name: str, caller: Path) -> str:
    """Return the comment in the first line of a configuration, up to its colon.

    Return ``name`` if the first line is no comment.

    Raises
    ------
    UsageError
        If the configuration does not exist or cannot be read.
    """
    try:
        path = caller / name if (caller / name).is_file() else find_config(name)
        with path.open(encoding="utf-8", errors="replace") as file:
            first = file.readline(200)
    except (OSError, ConfigError) as error:
        raise UsageError(str(error)) from None
    return first.lstrip("# ").partition(":")[0].strip() if first.startswith("#") else name


def _yaml_text(folder: Path) -> str:
    """Return the folder as a YAML list with one entry, quoted."""
    return json.dumps([str(folder)], ensure_ascii=False)
