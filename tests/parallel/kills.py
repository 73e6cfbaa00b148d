# SPDX-License-Identifier: Apache-2.0
"""Helpers that kill and resume a training run and compare its losses with an undisturbed run."""

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
MAX_SEGMENT_STEPS = STEPS_COMPARED + 16  # approximate maximum of steps from a start to its kill
MOMENTS = ("one", "all", "one, saving", "all, saving")
"""Kinds of kills: one rank or all processes; during a step or while a checkpoint is written."""


@dataclass(frozen=True)
class Kill:
    """Kill of a run and the result of the resumption."""

    moment: str
    at_step: int
    newest_checkpoint: int
    resumed_at: int
    left_partial_checkpoint: bool
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
    """Kill the run in ``folder`` at each of ``moments`` and resume it after each kill.

    Compare the 20 losses after each resumption with ``reference``, the losses of an undisturbed run
    by step.  The last start ends with a kill as well, so the run remains unfinished.
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
                last += int(generator.integers(1, MAX_SEGMENT_STEPS - STEPS_COMPARED))
            started.until(lambda last=last: _last_step(folder) >= last)
            partial = _kill(started, moment, folder, generator) if moment else False
        losses = read_losses(folder)
        if before:
            steps = range(resumed + 1, resumed + STEPS_COMPARED + 1)
            difference = max(abs(losses[step] - reference[step]) for step in steps)
            kind, at_step, newest, left = before
            kills.append(Kill(kind, at_step, newest, resumed, left, len(steps), difference))
        before = (moment, max(losses, default=0), newest_checkpoint(folder), partial)
    return kills


def newest_checkpoint(folder: Path) -> int:
    """Return the step of the newest checkpoint folder, 0 if there is none."""
    names = [path.name for path in (folder / "checkpoints").glob("step-*")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def has_partial_checkpoint(folder: Path) -> bool:
    """Return whether the run folder contains a partially written checkpoint."""
    return any((folder / "checkpoints").glob(".aside-*"))


def _kill(started: Ranks, moment: str, folder: Path, generator: np.random.Generator) -> bool:
    """Kill as ``moment`` says; return whether a partially written checkpoint remains."""
    pids = started.pids()
    assert len(pids) == started.size, started.output().everything
    saving = "saving" in moment
    if saving:
        started.until(lambda: has_partial_checkpoint(folder), poll_s=0.002)
    # A checkpoint takes some tens of milliseconds, a step about a tenth of a second.
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
        ended = started.wait()  # the launcher must end the other ranks and fail
        assert ended.code != 0, ended.everything
    return has_partial_checkpoint(folder)


def _last_step(folder: Path) -> int:
    return max(read_losses(folder), default=0)


def _resumption(started: Ranks) -> int | None:
    """Return the step at which the ranks resumed, 0 for a new run, None before they print it."""
    output = started.output().stdout
    if match := re.search(r"^resumed at step (\d+)", output, re.MULTILINE):
        return int(match[1])
    return 0 if re.search(r"^step \d+/", output, re.MULTILINE) else None
