# SPDX-License-Identifier: Apache-2.0
"""Paths as users write them: the shell leaves the ``~`` of ``key=~/faces`` as it is."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


class NoHome(argparse.ArgumentTypeError, ValueError):
    """A path in the home folder of somebody who has none; argparse shows the message."""


def expand_home(text: str) -> str:
    """Return a path with the home folder in the place of a ``~`` or ``~user`` at its start.

    Raises
    ------
    NoHome
        If that home folder cannot be found.
    """
    whole = os.path.expanduser(text)
    if whole.startswith("~"):
        whose = text.partition("/")[0]
        raise NoHome(
            f"the home folder of {whose} cannot be found, got {text!r}; write the whole path, or "
            f"./{text} for a folder of that name"
        )
    return whole


def home_path(text: str) -> Path:
    """Return what ``expand_home`` does as a Path: the type of a command-line argument."""
    return Path(expand_home(text))
