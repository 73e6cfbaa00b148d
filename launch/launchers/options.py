# SPDX-License-Identifier: Apache-2.0
"""The options of a launcher among the arguments of run_train.py, and how a plan is printed."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn


class UsageError(ValueError):
    """A command line or an environment that starts nothing; its message is the sentence."""


@dataclass(frozen=True)
class Host:
    """A host and how many ranks it takes."""

    name: str
    ranks: int


class Parser(argparse.ArgumentParser):
    """Takes its own options, leaves the others in order, and refuses with a sentence.

    Parameters
    ----------
    module
        Name of the launcher, such as ``launch.hosts``.
    description
        For ``--help``.
    """

    def __init__(self, module: str, description: str):
        super().__init__(
            prog=f"python -m {module}",
            description=description,
            epilog="All other arguments go to run_train.py, whose --help lists them.",
            allow_abbrev=False,  # run_train.py's --cfg and its variants are no short forms of ours
        )
        self._module = module

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage."""
        raise UsageError(f"{self._module}: {message}; see python -m {self._module} --help")

    def split(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Return our options and the arguments of run_train.py.

        Raises
        ------
        UsageError
            If an option of ours is misspelt or has no value.
        """
        return self.parse_known_args(list(argv))


def describe(hosts: Sequence[Host], command: Sequence[str], folder: object) -> str:
    """Return the plan of a dry run: which ranks on which host, and the exact command."""
    width = max(len("host"), *(len(host.name) for host in hosts))
    lines, first = [f"{'host':{width}}  ranks"], 0
    for host in hosts:
        last = first + host.ranks - 1
        lines.append(f"{host.name:{width}}  {first}" + (f"-{last}" if last > first else ""))
        first = last + 1
    lines.append(f"total: {count(first, 'rank')} on {count(len(hosts), 'host')}")
    lines.append(f"folder: {folder}")
    lines.append(f"command: {shlex.join(command)}")
    return "\n".join(lines)


def count(number: int, what: str) -> str:
    """Return "1 rank", "2 ranks"."""
    return f"{number} {what}{'' if number == 1 else 's'}"
