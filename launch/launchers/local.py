# SPDX-License-Identifier: Apache-2.0
"""Start ranks on this host:  python -m launch.local -np 2 --cfg NAME.yaml [overrides]

The launcher runs horovodrun, divides the cores among the ranks and prints the lines of rank 0
without horovodrun's prefixes.  On a terminal it draws a progress bar.  If the run fails, the
launcher prints the error message of the run, not horovodrun's traceback, and returns the exit code
of the run.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from launch.environment.open_files import OpenFilesError, require_open_files
from launch.launchers.caller_paths import resolve_arguments
from launch.launchers.horovod_cache import cache_options
from launch.launchers.horovodrun_output import HorovodrunReader
from launch.launchers.options import Parser, UsageError, shell_environment
from launch.launchers.own_data import add_own_data
from launch.launchers.supervise import ROOT, TRAIN, Reader, supervise

HOROVODRUN = Path(__file__).with_name("horovodrun")


def main(argv: Sequence[str]) -> int:
    """Start the ranks, wait until all have ended and return the exit code of the run."""
    parser = Parser("launch.local", "Start ranks on this host.")
    parser.add_argument(
        "-np", "--ranks", type=_rank_count, default=1, help="number of ranks (default: 1)"
    )
    parser.add_argument(
        "--data",
        help="your folder with train.rec, train.idx, property and perhaps .bin verification sets; "
        "with --data the default of --cfg is own.yaml",
    )
    try:
        options, arguments = parser.split(argv)
        if options.data is not None:
            arguments, line = add_own_data(arguments, options.data, Path.cwd())
            print(line, flush=True)
        arguments = resolve_arguments(arguments, Path.cwd(), ROOT)
        require_open_files(options.ranks if options.ranks > 1 else 0)
    except (UsageError, OpenFilesError) as error:
        print(error, file=sys.stderr)
        return 2
    hosts = [socket.gethostname()] * options.ranks
    reader = HorovodrunReader(hosts) if options.ranks > 1 else Reader()
    return supervise(
        build_command(options.ranks, arguments), build_environment(options.ranks), reader
    )


def face_train() -> NoReturn:
    """Run the command ``face-train``: replace this process by ``python -m launch.local``.

    The ranks recognise their launcher by the command line ``python -m launch.local``.
    """
    os.execv(sys.executable, [sys.executable, "-m", "launch.local", *sys.argv[1:]])


def _rank_count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a number of ranks above 0, got {text!r}")
    return int(text)


def build_command(ranks: int, arguments: Sequence[str]) -> list[str]:
    """Return the command line that starts the ranks: horovodrun, or run_train.py for one rank."""
    train = [*TRAIN, *arguments]
    if ranks == 1:
        return train
    # Without --gloo horovodrun imports MXNet to check for MPI.
    horovodrun = [sys.executable, str(HOROVODRUN), "--gloo"]
    return [*horovodrun, *cache_options(), "-np", str(ranks), *train]


def build_environment(ranks: int) -> dict[str, str]:
    """Return the environment variables of the ranks: those of this process and two defaults.

    The defaults are the number of OpenMP threads per rank, and unbuffered output of Python.
    """
    cores = len(os.sched_getaffinity(0))
    defaults = {"OMP_NUM_THREADS": str(max(1, cores // ranks)), "PYTHONUNBUFFERED": "1"}
    variables = shell_environment(os.environ)
    return {**variables, **{k: variables.get(k, v) for k, v in defaults.items()}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
