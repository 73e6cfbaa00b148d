# SPDX-License-Identifier: Apache-2.0
"""Run run_train.py and pause at a known place:  pausable.py ARGUMENTS-OF-RUN_TRAIN...

TEST_PAUSE_AT names the place.  "7": after this process has trained 7 steps and written their log
lines and checkpoints.  "verify": before a verification.  The process continues when
``Ranks.unpause`` signals it or when it receives a request to stop.
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

UNPAUSE = signal.SIGUSR1


def install() -> None:
    """Make run_train.py pause where TEST_PAUSE_AT says; do nothing without that variable."""
    where, unpaused = os.environ.get("TEST_PAUSE_AT", ""), threading.Event()
    if not where:
        return
    signal.signal(UNPAUSE, lambda *_: unpaused.set())
    ask_stop, train_step, evaluate_sets = (
        consensus.Consensus.ask_stop,
        loop.train_step,
        model.evaluate_sets,
    )
    steps = count()

    def ask(self: consensus.Consensus, number: int, frame: Any) -> None:
        ask_stop(self, number, frame)
        unpaused.set()

    def train(*arguments: Any, **options: Any) -> Any:
        if str(next(steps)) == where:
            unpaused.wait()
        return train_step(*arguments, **options)

    def evaluate(*arguments: Any, **options: Any) -> Any:
        if where == "verify":
            unpaused.wait()
        return evaluate_sets(*arguments, **options)

    consensus.Consensus.ask_stop, loop.train_step, model.evaluate_sets = ask, train, evaluate


if __name__ == "__main__":
    install()
    sys.exit(run_train.main(sys.argv[1:]))
