# SPDX-License-Identifier: Apache-2.0
"""Command line: evaluate and compare trained models, identify people, embed images, plot results.

python -m evaluation verify --model MODEL --sets A.bin [B.bin | FOLDER ...]
python -m evaluation compare --base MODEL --model MODEL --sets A.bin [B.bin | FOLDER ...]
python -m evaluation embed --model MODEL IMAGE|FOLDER ... --out EMBEDDINGS.npz
python -m evaluation compare-images --model MODEL A.jpg B.jpg
python -m evaluation identify megaface|tinyface|people ...
python -m evaluation templates ijbb|ijbc|ytf|list ...
python -m evaluation plot roc|det|histogram SCORES.npz ... --out FILE.png
python -m evaluation plot runs RUN ... --keys KEY ... --out FILE.svg
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from evaluation.commands import (
    compare,
    compare_images,
    embed,
    identify,
    plot,
    templates,
    verify,
)
from launch.config.command_errors import run_command
from launch.environment.provenance import VersionAction

COMMANDS = {
    "verify": verify,
    "compare": compare,
    "embed": embed,
    "compare-images": compare_images,
    "identify": identify,
    "templates": templates,
    "plot": plot,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 after an error message on stderr."""
    options = build_parser().parse_args(arguments)
    return run_command(lambda: COMMANDS[options.command].run(options))


def face_verify() -> int:
    """Run ``python -m evaluation verify`` with the arguments of this process."""
    return main(["verify", *sys.argv[1:]])


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m evaluation", description="Use trained models.")
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.add_options(commands.add_parser(name, help=command.HELP))
    return parser


if __name__ == "__main__":
    sys.exit(main())
