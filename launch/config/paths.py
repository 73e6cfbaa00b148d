# SPDX-License-Identifier: Apache-2.0
"""Expand a leading ``~`` in paths, because the shell does not expand ``key=~/faces``."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

PATH_KEYS = ("run.dir", "data.records", "train.pretrained", "eval.sets")
"""Keys in whose paths a leading ``~`` is expanded when the configuration is built.

data.remote_cache is not among them.  Each host expands the ``~`` of this key itself, because each
host has its own home folder.
"""
KEYS_WITHOUT_EMPTY_PATH = ("run.dir", "data.records", "data.remote_cache", "eval.sets")
"""Keys that refuse an empty path, which would mean the working folder."""


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:::[A-Za-z][A-Za-z0-9+.-]*)*://")


def is_url(path: str) -> bool:
    """Return whether a value of ``data.records`` is a URL, such as s3://bucket/folder."""
    return _URL.match(path) is not None


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
    """Expand a leading ``~`` and return a Path; for use as ``type`` of an argparse argument."""
    return Path(expand_home(text))
