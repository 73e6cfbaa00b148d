# SPDX-License-Identifier: Apache-2.0
"""Monitor the GPUs during a training run: memory at some steps, and processes per GPU."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.gpu_day.training_runs import metrics

QUERY_TIMEOUT_S = 10
QUERY_INTERVAL_S = 2.0


class GpuWatch:
    """Callback for `commands.run` that queries nvidia-smi during a training run.

    Parameters
    ----------
    folder
        Folder of the training run.
    steps
        Training steps at which to record the memory.
    clock
        Function that returns the time in seconds.
    """

    def __init__(
        self, folder: Path, steps: Sequence[int], clock: Callable[[], float] = time.monotonic
    ):
        self._folder, self._due, self._clock = folder, list(steps), clock
        self._last = clock() - QUERY_INTERVAL_S
        self.memory: dict[int, int] = {}
        """Used memory in MiB of the GPU with the most used memory, by training step."""
        self.contexts: dict[str, int] = {}
        """Largest number of processes seen at a time on each GPU, by the GPU's id."""

    def __call__(self, process: subprocess.Popen) -> None:
        """Query nvidia-smi every QUERY_INTERVAL_S seconds, if the run has logged a step."""
        if self._clock() - self._last < QUERY_INTERVAL_S:
            return
        self._last = self._clock()
        lines = metrics(self._folder)
        step = lines[-1]["step"] if lines else 0
        if not step:
            return
        seen: dict[str, set[str]] = {}
        for row in query("--query-compute-apps=gpu_uuid,pid"):
            if len(row) == 2:
                seen.setdefault(row[0], set()).add(row[1])
        for gpu, pids in seen.items():
            self.contexts[gpu] = max(len(pids), self.contexts.get(gpu, 0))
        used = [int(row[0]) for row in query("--query-gpu=memory.used") if row[0].isdigit()]
        while used and self._due and step >= self._due[0]:
            self.memory[self._due.pop(0)] = max(used)


def query(option: str) -> list[list[str]]:
    """Query nvidia-smi with an option; return the table as rows of cells, or [] after a failure."""
    try:
        done = subprocess.run(
            ["nvidia-smi", option, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=QUERY_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()]
