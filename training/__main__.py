# SPDX-License-Identifier: Apache-2.0
"""Command line: change the number of shards of the class centres in a checkpoint.

python -m training shards gather RUN|CHECKPOINT --out FOLDER
python -m training shards split RUN|CHECKPOINT --ranks N --out FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from launch.config.command_errors import run_command
from launch.config.paths import home_path
from launch.environment.provenance import VersionAction
from training.checkpoint import open_checkpoint
from training.reshard import MAX_SHARDS, reshard
from training.shard_files import shard_name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return exit code 0, or 2 after an error message on stderr."""
    options = build_parser().parse_args(arguments)
    return run_command(lambda: run_shards(options))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Change checkpoints of training runs."
    )
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(dest="command", required=True)
    shards = commands.add_parser("shards", help="change the number of shards of class centres")
    actions = shards.add_subparsers(dest="action", required=True)
    gather = actions.add_parser(
        "gather",
        help="copy a checkpoint; all class centres become the array fc7_weight of one file, "
        "fc7.params",
    )
    split = actions.add_parser(
        "split", help="copy a checkpoint; the class centres become one file for each rank"
    )
    for action in (gather, split):
        action.add_argument(
            "checkpoint",
            type=home_path,
            metavar="RUN|CHECKPOINT",
            help="checkpoint folder, or run folder for its newest valid checkpoint",
        )
        action.add_argument(
            "--out",
            required=True,
            type=home_path,
            metavar="FOLDER",
            help="folder of the new checkpoint, which must not exist yet",
        )
    split.add_argument(
        "--ranks",
        required=True,
        type=int,
        metavar="N",
        help=f"number of shards, from 1 to {MAX_SHARDS:,}",
    )
    gather.set_defaults(ranks=1)
    return parser


def run_shards(options: argparse.Namespace) -> None:
    """Copy a checkpoint with another number of shards, and print what was written."""
    source = open_checkpoint(options.checkpoint)
    size = options.ranks
    num_classes = reshard(source, options.out, size)
    names = shard_name(0, size)
    if size > 1:
        names = f"{names} to {shard_name(size - 1, size)}"
    print(f"{options.out}: {num_classes:,} classes of {source.folder} in {names}")


if __name__ == "__main__":
    sys.exit(main())
