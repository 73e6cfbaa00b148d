# SPDX-License-Identifier: Apache-2.0
"""Start the ranks of one host:  python -m launch.local -np 2 --cfg NAME.yaml [overrides]

Does what a user would do by hand with horovodrun: shares the cores among the ranks, shows rank 0's
lines without horovodrun's prefixes, draws a progress bar on a terminal, and ends with the run's
own sentence and exit code instead of horovodrun's traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from launch.launchers.options import Parser, UsageError
from launch.launchers.supervise import TRAIN, HorovodrunReader, Reader, supervise


def main(argv: Sequence[str]) -> int:
    """Run the ranks to their end; return their exit code."""
    parser = Parser("launch.local", "Start the ranks of this host.")
    parser.add_argument("-np", "--ranks", type=_rank_count, default=1, help="how many (1)")
    try:
        options, arguments = parser.split(argv)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    reader = HorovodrunReader() if options.ranks > 1 else Reader()
    return supervise(command(options.ranks, arguments), environment(options.ranks), reader)


def face_train() -> NoReturn:
    """Become ``python -m launch.local``, the name by which ranks know their launcher."""
    os.execv(sys.executable, [sys.executable, "-m", "launch.local", *sys.argv[1:]])


def _rank_count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a number of ranks above 0, got {text!r}")
    return int(text)


def command(ranks: int, arguments: Sequence[str]) -> list[str]:
    """Return the command line of the ranks."""
    train = [*TRAIN, *arguments]
    if ranks == 1:
        return train
    # --gloo: else horovodrun imports MXNet once more to find out whether there is MPI.
    horovodrun = [str(Path(sys.executable).with_name("horovodrun")), "--gloo"]
    return [*horovodrun, "-np", str(ranks), *train]


def environment(ranks: int) -> dict[str, str]:
    """Return the environment of the ranks: the cores shared, output at once."""
    cores = len(os.sched_getaffinity(0))
    shared = {"OMP_NUM_THREADS": str(max(1, cores // ranks)), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **{k: os.environ.get(k, v) for k, v in shared.items()}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
