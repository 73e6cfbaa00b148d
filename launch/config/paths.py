# SPDX-License-Identifier: Apache-2.0
"""Expand a leading ``~`` in paths, because the shell does not expand ``key=~/faces``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

PATH_KEYS = ("run.dir", "data.records", "train.pretrained", "eval.sets")
"""Keys whose values are paths, in which a leading ``~`` means the home folder."""
KEYS_WITHOUT_EMPTY_PATH = ("run.dir", "data.records", "eval.sets")
"""Keys that refuse an empty path, which would mean the working folder."""


class NoHome(argparse.ArgumentTypeError, ValueError):
    """Error for a path that names an unknown home folder; argparse prints its message."""


def expand_home(text: str) -> str:
    """Replace a leading ``~`` or ``~user`` by the home folder.

    Raises
    ------
    NoHome
        If the home folder of the user cannot be found.
    """
    path = os.path.expanduser(text)
    if path.startswith("~"):
        user = text.partition("/")[0]
        raise NoHome(
            f"the home folder of {user} cannot be found, got {text!r}; write an absolute path, or "
            f"./{text} for a folder of that name"
        )
    return path


def home_path(text: str) -> Path:
    """Expand a leading ``~`` and return a Path; the ``type`` of an argparse argument."""
    return Path(expand_home(text))
