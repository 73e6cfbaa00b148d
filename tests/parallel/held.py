# SPDX-License-Identifier: Apache-2.0
"""run_train.py that stands still at a place, so that a test finds it there: ``held.py ARGS...``.

TEST_HOLD says where: "7": when this process has trained 7 steps and their lines and checkpoints are
written; "verify": before a verification.  It goes on when it is told to (`Ranks.go_on`) or asked to
stop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from itertools import count
from typing import Any

import run_train
from assemble import model
from training import consensus, loop

GO_ON = signal.SIGUSR1


def install() -> None:
    """Let run_train.py stand still where TEST_HOLD says; nothing where it says nothing."""
    where, told = os.environ.get("TEST_HOLD", ""), threading.Event()
    if not where:
        return
    signal.signal(GO_ON, lambda *_: told.set())
    ask_stop, train_step, evaluate_sets = (
        consensus.Consensus.ask_stop,
        loop.train_step,
        model.evaluate_sets,
    )
    steps = count()

    def ask(self: consensus.Consensus, number: int, frame: Any) -> None:
        ask_stop(self, number, frame)
        told.set()

    def train(*arguments: Any, **options: Any) -> Any:
        if str(next(steps)) == where:
            told.wait()
        return train_step(*arguments, **options)

    def evaluate(*arguments: Any, **options: Any) -> Any:
        if where == "verify":
            told.wait()
        return evaluate_sets(*arguments, **options)

    consensus.Consensus.ask_stop, loop.train_step, model.evaluate_sets = ask, train, evaluate


if __name__ == "__main__":
    install()
    sys.exit(run_train.main(sys.argv[1:]))
