# SPDX-License-Identifier: Apache-2.0
"""Start a process that runs one implementation to measure, and exchange messages with it.

In that process, benchmarks/harness/worker.py receives the requests and sends the answers.
"""

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
# The poll interval must exceed a clock tick (0.01 s), the resolution of the CPU times in
# /proc/PID/stat.  Otherwise a busy process could show the same CPU time twice and seem idle.
IDLE_POLL_S = 0.03
IDLE_TIMEOUT_S = 2.0  # The wait needs a limit, because some processes never become idle.


class WorkerError(RuntimeError):
    """Error for a process that ended or did not answer; the message quotes the last stderr line."""


@dataclass(frozen=True)
class Candidate:
    """An implementation to measure; its result is one row of the printed table.

    Parameters
    ----------
    name
        Name of the row; the name begins with "ours" for our code, "limit" for an upper bound.
    module
        Module for ``python -m``, which calls `benchmarks.harness.worker.serve`.
    settings
        Keyword arguments of the module's ``build``.
    needs
        Required package: "gluonfr", "simplejpeg", "torch", or "" for none.  The row is left out if
        the package is not available.
    python
        Python interpreter that runs the module; PyTorch may be in another environment than MXNet.
    images
        Number of images in a step; 0 if the candidate has no rate in images per second.
    same_value, same_size
        Whether to check the candidate against the others of its group: after the first step, all
        candidates with ``same_value`` must return the same value, and all candidates with
        ``same_size`` must have the same number of parameters.
    steady
        Record only the mean time of many steps, because prefetching makes the time of a single step
        meaningless.
    environment
        Additional environment variables of the process.
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
    """Running process of a `Candidate`; `hello` is the first message that the process sends."""

    def __init__(self, candidate: Candidate) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  __exit__ closes the file
        threads = {f"{library}_NUM_THREADS": str(CORES) for library in ("OMP", "OPENBLAS", "MKL")}
        # PYTHONPATH lets a Python interpreter find this project even if it is not installed there.
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
        # Close stdin to end the process, so that its memory is free for the next processes.
        try:
            self._process.stdin.close()  # type: ignore[union-attr]
            self._process.wait(timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._errors.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request to the process and return its answer.

        Raises
        ------
        WorkerError
            If the process has ended or does not answer within ANSWER_TIMEOUT_S seconds.
        """
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except OSError:
            raise WorkerError(self._failure("ended")) from None
        return self._answer()

    def wait_until_idle(self) -> None:
        """Wait until the process and its children have filled their prefetch queues.

        A process that still prefetches would slow down the process that is measured next.  The wait
        ends after IDLE_TIMEOUT_S seconds at the latest.
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
        return f"the process {event}: {lines[-1][:300] if lines else 'no output on stderr'}"


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and its descendants; 0 if the process has ended."""
    try:
        # /proc/PID/stat has the form "pid (name) state ...".  The name may contain spaces and
        # brackets, so split only the text after the last ")".
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
