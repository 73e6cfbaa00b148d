# SPDX-License-Identifier: Apache-2.0
"""Command-line options of the launchers, and the plan that ``--dry-run`` prints."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from launch.environment.provenance import VersionAction

INTERFACE_HELP = (
    "network interface for Gloo and NCCL, such as eth0 (default: detected automatically)"
)


class UsageError(ValueError):
    """Error for an invalid command line or environment of a launcher."""


@dataclass(frozen=True)
class Host:
    """Name of a host, and the number of ranks to start on it."""

    name: str
    ranks: int


class Parser(argparse.ArgumentParser):
    """Argument parser of a launcher, which passes unknown arguments on to run_train.py.

    Parameters
    ----------
    module
        Name of the launcher, such as ``launch.hosts``.
    description
        Description for ``--help``.
    """

    def __init__(self, module: str, description: str):
        super().__init__(
            prog=f"python -m {module}",
            description=description,
            epilog="All other arguments are passed to run_train.py, whose --help lists them.",
            allow_abbrev=False,  # else argparse may take run_train.py's options for abbreviations
        )
        self.add_argument("--version", action=VersionAction)
        self._module = module

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage and exiting."""
        raise UsageError(f"{self._module}: {message}; see python -m {self._module} --help")

    def split(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Split a command line into the options of the launcher and the arguments of run_train.py.

        Raises
        ------
        UsageError
            If an option of the launcher is missing or has an invalid value.
        """
        return self.parse_known_args(list(argv))


def interface_name(text: str) -> str:
    """Check the name of a network interface; for use as ``type`` of an argparse argument.

    Horovod inserts the name into shell commands without quotes.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.:@-]{0,31}", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"must be the name of a network interface, such as eth0, got {text!r}"
        )
    return text


def port_number(text: str) -> int:
    """Check the number of a TCP port; for use as ``type`` of an argparse argument."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"must be a port from 1 to 65535, got {text!r}")
    return int(text)


def shell_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables whose names need no shell quotes.

    horovodrun inserts the names into shell commands without quotes.  A name with other characters
    than letters, digits and ``_`` could therefore run a command.
    """
    plain = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
    return {name: value for name, value in variables.items() if plain.fullmatch(name)}


def check_configuration(train: Sequence[str], arguments: Sequence[str], folder: object) -> int:
    """Let run_train.py check its arguments without starting ranks; return the exit code.

    Parameters
    ----------
    train
        Command line of run_train.py without arguments.
    arguments
        Arguments of run_train.py.
    folder
        Folder in which the ranks run.
    """
    done = subprocess.run(
        [*train, "--print-config", *arguments],
        cwd=str(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stderr, end="", file=sys.stderr)
    return done.returncode


def format_plan(hosts: Sequence[Host], command: Sequence[str], folder: object) -> str:
    """Return the text that ``--dry-run`` prints: ranks of each host, project folder and command."""
    width = max(len("host"), *(len(host.name) for host in hosts))
    lines, first = [f"{'host':{width}}  ranks"], 0
    for host in hosts:
        last = first + host.ranks - 1
        lines.append(f"{host.name:{width}}  {first}" + (f"-{last}" if last > first else ""))
        first = last + 1
    lines.append(f"total: {format_count(first, 'rank')} on {format_count(len(hosts), 'host')}")
    lines.append(f"folder: {folder}")
    lines.append(f"command: {shlex.join(command)}")
    return "\n".join(lines)


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural, such as "1 rank" or "2 ranks"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
