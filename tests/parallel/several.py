# SPDX-License-Identifier: Apache-2.0
"""Train several times in the same ranks, so that they import MXNet once:  several.py FILE

FILE holds a JSON list of the argument lists of run_train.py, or of ``python -m evaluation`` if the
first argument is "verify".  Each rank prints ``START`` on both output streams before every training
and ``END`` with the exit code after it.  A training after another one has other random names of its
blocks, but the same weights and losses.

The argument ``--labels=FOLDER`` records the labels of every step, as record_labels.py does.  The
argument ``--crash-after=N`` ends a training after N steps with exit code ``CRASHED``, without a
checkpoint of step N.  A later training can resume that run.  tests/parallel/kills.py kills the
ranks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import run_train
from evaluation import __main__ as evaluation
from launch import ranks
from launch.ranks.comm import connect
from tests.parallel.ranks import CRASH_AFTER, CRASHED, END, LABELS, START
from tests.parallel.record_labels import recording
from training import loop


class Crash(BaseException):
    """End of a training that no handler of the program catches."""


def crashing(train_step: Callable[..., Any], steps: int) -> Callable[..., Any]:
    """Return a ``train_step`` that raises Crash after ``steps`` steps."""
    done = count()

    def train(*arguments: Any, **options: Any) -> Any:
        if next(done) == steps:
            raise Crash
        return train_step(*arguments, **options)

    return train


def train(arguments: list[str]) -> int:
    """Call run_train.py with arguments, which may begin with LABELS and CRASH_AFTER, in this order.

    Returns the exit code.
    """
    with pytest.MonkeyPatch.context() as patch, ExitStack() as files:
        if arguments[0].startswith(LABELS):
            folder = Path(arguments[0].removeprefix(LABELS))
            patch.setattr(
                loop, "train_step", files.enter_context(recording(folder, loop.train_step))
            )
            arguments = arguments[1:]
        if arguments[0].startswith(CRASH_AFTER):
            steps = int(arguments[0].removeprefix(CRASH_AFTER))
            patch.setattr(loop, "train_step", crashing(loop.train_step, steps))
            arguments = arguments[1:]
        try:
            return run_train.main(arguments)
        except Crash:
            return CRASHED


def main(argument_lists: list[list[str]]) -> int:
    """Call the programs with each of the argument lists; return 0."""
    comm = connect()
    run_train.connect = lambda: comm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(comm), "close", lambda comm: None)  # between the trainings
        patch.setattr(ranks.comm, "connect", lambda: comm)
        for arguments in argument_lists:
            for stream in (sys.stdout, sys.stderr):
                print(START, file=stream, flush=True)
            code = evaluation.main(arguments) if arguments[0] == "verify" else train(arguments)
            print(END, code, flush=True)
            comm.gather_json("printed")
    comm.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
