# SPDX-License-Identifier: Apache-2.0
"""Kill a training run at random moments, start it again, and compare it with an undisturbed one."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.parallel.ranks import Ranks, read_losses, training

STEPS_COMPARED = 20
LONGEST_SEGMENT = STEPS_COMPARED + 16  # steps between a start and its kill, at most about
MOMENTS = ("one", "all", "one, saving", "all, saving")
"""What is killed and when: one rank or everything, in a step or while a checkpoint is written."""


@dataclass(frozen=True)
class Kill:
    """One kill and what came after it."""

    what: str
    at_step: int
    newest_checkpoint: int
    resumed_at: int
    left_half_written: bool
    compared: int
    difference: float


def kill_often(
    cfg: Path,
    folder: Path,
    ranks: int,
    moments: Sequence[str],
    reference: Mapping[int, float],
    seed: int,
) -> list[Kill]:
    """Start the run of ``folder``, kill it once for each of ``moments``, always going on.

    The 20 losses after every resumption are compared with ``reference``, loss by step. The run is
    left unfinished, killed for a last time when there are enough losses.
    """
    generator = np.random.default_rng(seed)
    kills: list[Kill] = []
    before: tuple[str, int, int, bool] | None = None
    for moment in [*moments, ""]:
        with Ranks(ranks, training(cfg)) as started:
            enough = STEPS_COMPARED if before else 0
            resumed = 0
            if before:
                started.until(lambda: _resumption(started) is not None)
                resumed = _resumption(started)
            last = resumed + enough
            if moment:
                last += int(generator.integers(1, LONGEST_SEGMENT - STEPS_COMPARED))
            started.until(lambda last=last: _last_step(folder) >= last)
            half = _kill(started, moment, folder, generator) if moment else False
        losses = read_losses(folder)
        if before:
            steps = range(resumed + 1, resumed + STEPS_COMPARED + 1)
            difference = max(abs(losses[step] - reference[step]) for step in steps)
            what, at_step, newest, left = before
            kills.append(Kill(what, at_step, newest, resumed, left, len(steps), difference))
        before = (moment, max(losses, default=0), newest_checkpoint(folder), half)
    return kills


def newest_checkpoint(folder: Path) -> int:
    """Return the step of the newest checkpoint folder, 0 if there is none."""
    names = [path.name for path in (folder / "checkpoints").glob("step-*")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def half_written(folder: Path) -> bool:
    """Return whether a checkpoint is just being written, or was left so."""
    return any((folder / "checkpoints").glob(".aside-*"))


def _kill(started: Ranks, moment: str, folder: Path, generator: np.random.Generator) -> bool:
    """Kill what ``moment`` says; return whether a checkpoint was left half written."""
    pids = started.pids()
    assert len(pids) == started.size, started.output().everything
    saving = "saving" in moment
    if saving:
        started.until(lambda: half_written(folder))
    # A write lasts some tens of milliseconds, a step about a tenth of a second.
    time.sleep(generator.uniform(0, 0.015 if saving else 0.2))
    victims = list(pids.values())
    if moment.startswith("one"):
        victims = [victims[int(generator.integers(len(victims)))]]
        if saving:
            victims = [pids[0]]  # the rank that writes
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if moment.startswith("all"):
        started.kill_all()
    else:
        ended = started.wait()  # the launcher must end the others, and tell of it
        assert ended.code != 0, ended.everything
    return half_written(folder)


def _last_step(folder: Path) -> int:
    return max(read_losses(folder), default=0)


def _resumption(started: Ranks) -> int | None:
    """Return the step that the ranks go on from, 0 for a new beginning; None before they know."""
    said = started.output().stdout
    if match := re.search(r"^resumed at step (\d+)", said, re.MULTILINE):
        return int(match[1])
    return 0 if re.search(r"^step \d+/", said, re.MULTILINE) else None
