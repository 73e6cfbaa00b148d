# SPDX-License-Identifier: Apache-2.0
"""Paths with a leading ``~``, which the shell does not expand in ``key=~/faces``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


class NoHome(argparse.ArgumentTypeError, ValueError):
    """A path that names an unknown home folder; argparse prints the message."""


def expand_home(text: str) -> str:
    """Replace a leading ``~`` or ``~user`` by the home folder.

    Raises
    ------
    NoHome
        If the user has no home folder.
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
    """Return `expand_home` of a path as a Path; a ``type`` for argparse."""
    return Path(expand_home(text))
