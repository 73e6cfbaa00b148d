# SPDX-License-Identifier: Apache-2.0
"""Make the paths on a launcher's command line independent of the working folder.

The ranks run in the project folder.  A relative path on the command line refers to the folder in
which the launcher was called.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from launch.config.paths import PATH_KEYS, is_url

MAX_VALUE_CHARACTERS = 10_000
"""Maximum length of a value that is parsed as YAML, whose parser needs quadratic time."""


def resolve_arguments(arguments: Sequence[str], caller: Path, project: Path) -> list[str]:
    """Return the arguments of run_train.py with absolute paths.

    Parameters
    ----------
    arguments
        Arguments of run_train.py.
    caller
        Folder to which relative paths refer.
    project
        Folder in which the ranks run; if ``caller`` is this folder, nothing changes.
    """
    if caller == project:
        return list(arguments)
    resolved, is_config = [], False
    for argument in arguments:
        option, equals, name = argument.partition("=")
        if is_config:
            argument = _resolve_config(argument, caller)
        elif option == "--cfg" and equals:
            argument = f"--cfg={_resolve_config(name, caller)}"
        elif option in PATH_KEYS:
            argument = f"{option}={_resolve_value(name, caller)}"
        is_config = argument == "--cfg"
        resolved.append(argument)
    return resolved


def _resolve_config(name: str, caller: Path) -> str:
    """Return the absolute path of an existing file, or else ``name`` unchanged.

    ``name`` may be the name of a file in configs/.
    """
    return str(caller / name) if (caller / name).is_file() else name


def _resolve_value(text: str, caller: Path) -> str:
    """Return ``text``, which is a path or a YAML list of paths, with absolute paths."""
    if len(text) > MAX_VALUE_CHARACTERS:
        return text  # run_train.py will refuse the text
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text  # run_train.py will refuse the text or treat it as a path
    if isinstance(value, str) and value == text:
        return _resolve_path(text, caller)
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return json.dumps([_resolve_path(entry, caller) for entry in value], ensure_ascii=False)
    return text


def _resolve_path(path: Any, caller: Path) -> str:
    # "~" and "${NAME}" are expanded later; an empty path is refused later.
    is_complete = not path or path.startswith(("~", "${")) or is_url(path)
    return path if is_complete else str(caller / path)
