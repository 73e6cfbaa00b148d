# SPDX-License-Identifier: Apache-2.0
"""Candidate for the tests of benchmarks/: it computes nothing and follows its settings."""

from __future__ import annotations

import os
import signal
import sys
import time

from benchmarks.harness.worker import LeftOut, Work, serve


def build(
    value: float = 1.0,
    parameters: int = 7,
    mark: bool = False,
    left_out: str = "",
    dies: str = "",
    journal: str = "",
    word: str = "",
    memory_mib: int = 0,
    silent: bool = False,
) -> Work:
    if left_out:
        raise LeftOut(left_out)
    if silent:
        signal.pause()
    print("libraries print to stdout")
    kept = bytearray(os.urandom(1024) * 1024 * memory_mib)

    def step(update) -> float:
        if dies:
            print(dies, file=sys.stderr)
            sys.exit(3)
        if journal:
            with open(journal, "a") as file:
                print(word, file=file)
        bytes(kept)
        if mark:
            update()
        time.sleep(0.001)
        return value

    return Work(
        step, len(kept), parameters, {"echo": "1.2.3"}, profile=lambda steps: {"op": float(steps)}
    )


if __name__ == "__main__":
    serve(build, lambda: None)
