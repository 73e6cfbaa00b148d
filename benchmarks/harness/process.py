# SPDX-License-Identifier: Apache-2.0
"""The process of a candidate, as the parent sees it; harness/worker.py is the other end."""

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

ANSWER_S = 240  # as long as a process may take to be built or to do a turn
CORES = len(os.sched_getaffinity(0))
GLANCE_S = 0.03  # without computing: it rests; the system counts hundredths of a second
REST_S = 2.0  # after which it is taken for one that never rests


class WorkerError(RuntimeError):
    """A process ended or did not answer; the message says what it last wrote."""


@dataclass(frozen=True)
class Candidate:
    """A row of the table: who computes what.

    Parameters
    ----------
    name
        Of the row; ours begin with "ours", upper bounds with "limit".
    module
        What to run with ``python -m``; it calls `benchmarks.harness.worker.serve`.
    settings
        Keywords for its ``build``.
    needs
        "gluonfr", "simplejpeg" or "torch": left out if it is not available.
    python
        Interpreter; another one for PyTorch.
    images
        Images of a step, where images per second mean something.
    same_value, same_size
        Whether the first step's number, and the number of parameters, must be those of the other
        candidates of the group that say so.
    steady
        Whether single steps say nothing, because work is prefetched in bursts: a turn counts as
        the mean of its steps.
    environment
        Variables of the process.
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
    """A candidate's process; `hello` is its first answer."""

    def __init__(self, candidate: Candidate) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  as long as the process
        threads = {f"{library}_NUM_THREADS": str(CORES) for library in ("OMP", "OPENBLAS", "MKL")}
        # Another interpreter does not have the checkout installed.
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
        # It ends when its stdin is closed, and with it its memory, which the next group needs.
        try:
            self._process.stdin.close()  # type: ignore[union-attr]
            self._process.wait(timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._errors.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request; return the answer."""
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except OSError:
            raise WorkerError(self._last_words("ended")) from None
        return self._answer()

    def come_to_rest(self) -> None:
        """Wait until the process and its children have filled their prefetch queues.

        They would take the cores from whoever has the next turn.
        """
        end, before = time.monotonic() + REST_S, -1.0
        while time.monotonic() < end:
            now = cpu_seconds(self._process.pid)
            if now == before:
                return
            before = now
            time.sleep(GLANCE_S)

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        if not select.select([stdout], [], [], ANSWER_S)[0]:
            self._process.kill()
            raise WorkerError(self._last_words(f"gave no answer in {ANSWER_S} s"))
        line = stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise WorkerError(self._last_words("ended"))
        return json.loads(line)

    def _last_words(self, what: str) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return f"its process {what}: {lines[-1][:300] if lines else 'it printed nothing'}"


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process and those that it started have taken, 0 if it ended."""
    try:
        # "pid (name) state ...": the name may hold anything.
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
