# SPDX-License-Identifier: Apache-2.0
"""Start the ranks of one host:  python -m launch.local -np 2 --cfg NAME.yaml [overrides]

Does what a user would do by hand with horovodrun: shares the cores among the ranks, shows rank 0's
lines without horovodrun's prefixes, draws a progress bar on a terminal, and ends with the run's
own sentence and exit code instead of horovodrun's traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from launch.launchers.supervise import TRAIN, HorovodrunReader, Reader, supervise


def main(argv: Sequence[str]) -> int:
    """Run the ranks to their end; return their exit code."""
    ranks, arguments = _split(list(argv))
    if ranks is None:
        print(
            "launch.local: -np must be a number of ranks above 0; use -np N --cfg FILE",
            file=sys.stderr,
        )
        return 2
    reader = HorovodrunReader() if ranks > 1 else Reader()
    return supervise(command(ranks, arguments), environment(ranks), reader)


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


def _split(argv: list[str]) -> tuple[int | None, list[str]]:
    """Take ``-np N`` out of the arguments; one rank without it."""
    if "-np" not in argv:
        return 1, argv
    place = argv.index("-np")
    try:
        ranks = int(argv[place + 1])
    except (IndexError, ValueError):
        return None, argv
    return (ranks if ranks > 0 else None), argv[:place] + argv[place + 2 :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
