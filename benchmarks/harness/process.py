# SPDX-License-Identifier: Apache-2.0
"""Processes that run one candidate each; benchmarks/harness/worker.py is their other end."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.baselines import ROOT

ANSWER_TIMEOUT_S = 240
CORES = len(os.sched_getaffinity(0))
IDLE_POLL_S = 0.03  # longer than a clock tick of /proc/PID/stat, 0.01 s
IDLE_TIMEOUT_S = 2.0  # some processes never become idle


class WorkerError(RuntimeError):
    """A process ended or did not answer; the message quotes the last line of its stderr."""


@dataclass(frozen=True)
class Candidate:
    """One row of the table: an implementation and the work that it does.

    Parameters
    ----------
    name
        Name of the row; it begins with "ours" for our code and with "limit" for an upper bound.
    module
        Module for ``python -m``, which calls `benchmarks.harness.worker.serve`.
    settings
        Keyword arguments of the module's ``build``.
    needs
        "gluonfr", "simplejpeg" or "torch"; the row is left out if that package is not available.
    python
        Python interpreter; PyTorch has its own.
    images
        Number of images in a step; 0 if a rate in images per second makes no sense.
    same_value, same_size
        Require the same result of the first step, and the same number of parameters, as the other
        candidates of the group with this flag.
    steady
        Count the mean of a turn's steps as one measurement, because prefetching makes the time of
        single steps meaningless.
    environment
        Environment variables of the process.
    """

    name: str
    module: str
    settings: dict[str, Any]
    needs: str = ""
    python: str = sys.executable
    images: int = 0
    same_value: bool = False
    same_size: bool = False
    steady: bool = False
    environment: dict[str, str] = field(default_factory=dict)


class Process:
    """Process of a candidate; `hello` is its first answer."""

    def __init__(self, candidate: Candidate) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  __exit__ closes it
        threads = {f"{library}_NUM_THREADS": str(CORES) for library in ("OMP", "OPENBLAS", "MKL")}
        # The checkout is not installed in the environment of another interpreter.
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [candidate.python, "-m", candidate.module, json.dumps(candidate.settings)],
            cwd=ROOT,
            env={**os.environ, **threads, "PYTHONPATH": path, **candidate.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.hello: dict[str, Any] = {}

    def __enter__(self) -> Process:
        try:
            self.hello = self._answer()
        except WorkerError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Closing stdin ends the process and frees its memory for the next group.
        try:
            self._process.stdin.close()  # type: ignore[union-attr]
            self._process.wait(timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._errors.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request; return the answer.

        Raises
        ------
        WorkerError
            If the process ended or does not answer in ANSWER_TIMEOUT_S seconds.
        """
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except OSError:
            raise WorkerError(self._failure("ended")) from None
        return self._answer()

    def wait_until_idle(self) -> None:
        """Wait until the process and its children have filled their prefetch queues.

        Otherwise they would slow down the next candidate.
        """
        end, before = time.monotonic() + IDLE_TIMEOUT_S, -1.0
        while time.monotonic() < end:
            now = cpu_seconds(self._process.pid)
            if now == before:
                return
            before = now
            time.sleep(IDLE_POLL_S)

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        if not select.select([stdout], [], [], ANSWER_TIMEOUT_S)[0]:
            self._process.kill()
            raise WorkerError(self._failure(f"gave no answer in {ANSWER_TIMEOUT_S} s"))
        line = stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise WorkerError(self._failure("ended"))
        return json.loads(line)

    def _failure(self, event: str) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return f"its process {event}: {lines[-1][:300] if lines else 'it printed nothing'}"


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its descendants in seconds, 0 if it has ended."""
    try:
        # The line is "pid (name) state ...", and the name may contain spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = [
            int(child)
            for listed in Path(f"/proc/{pid}/task").glob("*/children")
            for child in listed.read_text().split()
        ]
    except OSError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(cpu_seconds, children))
