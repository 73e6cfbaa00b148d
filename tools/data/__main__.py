# SPDX-License-Identifier: Apache-2.0
"""Command line: python -m tools.data COMMAND [arguments]; COMMAND --help lists the arguments."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from launch.config.command_errors import run_command
from launch.environment.provenance import VersionAction

# Name of each command -> its module.  Each module defines HELP, add_options(parser), and
# run(options), which returns the exit code.
COMMANDS: dict[str, str] = {
    "align": "tools.data.commands.align",
    "pack": "tools.data.commands.pack",
    "check": "tools.data.commands.check",
    "unpack": "tools.data.commands.unpack",
    "merge": "tools.data.commands.merge",
    "split": "tools.data.commands.split",
    "filter": "tools.data.commands.filter",
    "subset": "tools.data.commands.subset",
    "shuffle": "tools.data.commands.shuffle",
    "stats": "tools.data.commands.stats",
    "make-bin": "tools.data.commands.make_bin",
    "show-bin": "tools.data.commands.show_bin",
    "check-bin": "tools.data.commands.check_bin",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the command's exit code, or 2 after an error message."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser(given).parse_args(given)
    return run_command(lambda: options.run(options))


def build_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    If ``arguments`` name a command, the function imports only the module of this command, because
    some commands need packages that others do not.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.data",
        description="Make, check and change record sets and verification sets.",
    )
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = next((word for word in arguments if word in COMMANDS), None)
    for name in [named] if named else COMMANDS:
        module = importlib.import_module(COMMANDS[name])
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_options(command)
        command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
