# SPDX-License-Identifier: Apache-2.0
"""What nvidia-smi tells while ranks train: memory at some steps, and whose processes are where."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.gpu_day.training_runs import metrics

ASK_S = 10
EVERY_S = 2.0


class GpuWatch:
    """Looks at the GPUs while a run goes on; called with its process.

    Parameters
    ----------
    folder
        Of the run.
    steps
        Steps from which on the memory is taken down, once each.
    clock
        Returns seconds.
    """

    def __init__(
        self, folder: Path, steps: Sequence[int], clock: Callable[[], float] = time.monotonic
    ):
        self._folder, self._due, self._clock = folder, list(steps), clock
        self._last = clock() - EVERY_S
        self.memory: dict[int, int] = {}
        """MiB of the fullest GPU, by step."""
        self.contexts: dict[str, int] = {}
        """Most processes that were seen on a GPU, by its id."""

    def __call__(self, process: subprocess.Popen) -> None:
        """Look again if it is time."""
        if self._clock() - self._last < EVERY_S:
            return
        self._last = self._clock()
        lines = metrics(self._folder)
        step = lines[-1]["step"] if lines else 0
        if not step:
            return
        seen: dict[str, set[str]] = {}
        for row in ask("--query-compute-apps=gpu_uuid,pid"):
            if len(row) == 2:
                seen.setdefault(row[0], set()).add(row[1])
        for gpu, pids in seen.items():
            self.contexts[gpu] = max(len(pids), self.contexts.get(gpu, 0))
        used = [int(row[0]) for row in ask("--query-gpu=memory.used") if row[0].isdigit()]
        while used and self._due and step >= self._due[0]:
            self.memory[self._due.pop(0)] = max(used)


def ask(query: str) -> list[list[str]]:
    """Return the rows that nvidia-smi answers; none where it fails."""
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=ASK_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()]
