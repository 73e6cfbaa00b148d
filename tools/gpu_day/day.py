# SPDX-License-Identifier: Apache-2.0
"""Run the measurements (steps) of `tools.gpu_day` one after another, and record their results.

A failed step does not stop the next step.  The module needs only the standard library, so that any
Python can run it.  Only the steps run in the Python environment under test.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from launch.ranks.lifeline import end_with_parent
from tools.gpu_day import supervisor
from tools.gpu_day.results import Part, append_line, read_parts
from tools.gpu_day.setting import ROOT, Setting
from tools.gpu_day.supervisor import Outcome

if TYPE_CHECKING:
    from tools.gpu_day.steps import Step

LINES = "gpu_day.jsonl"
"""Name of the file with one JSON line per step, in the folder of the results."""
LOGS = "gpu_day"
"""Name of the folder with the logs of the steps, in the folder of the results."""


@dataclass
class Day:
    """Run of all measurements, step by step.

    Parameters
    ----------
    python
        Python interpreter of the environment under test.
    out
        Folder of the results.
    setting
        Setting that each step receives, with a new scratch folder per step.
    patience
        Factor by which all time limits are multiplied, for slow machines.
    """

    python: str
    out: Path
    setting: Setting
    patience: float = 1.0

    def __post_init__(self) -> None:
        self._supervisor: subprocess.Popen[str] | None = None
        self.stopped_by = 0
        """Number of the signal that stopped the measurements; 0 if no signal has arrived."""

    def run(self, steps: Sequence[Step]) -> list[dict[str, Any]]:
        """Run the steps, append a result line per step to the file LINES, and return the lines.

        SIGINT, SIGTERM and SIGHUP end all processes of the current step, and the later steps are
        skipped.
        """
        (self.out / LOGS).mkdir(parents=True, exist_ok=True)
        # After this call, the descendants of a killed supervisor become children of this process,
        # so that end_all() can end them.
        supervisor.adopt_orphans()
        for number in supervisor.STOP_SIGNALS:
            # Under nohup, SIGHUP is ignored and must stay ignored.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._stop)
        lines = []
        for step in steps:
            print(f"step {step.what} ...", flush=True)
            line = self._result(step)
            append_line(self.out / LINES, line)
            print(f"step {step.what}: {describe(line)}", flush=True)
            lines.append(line)
        return lines

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.stopped_by = self.stopped_by or number
        if self._supervisor is not None:
            self._supervisor.send_signal(signal.SIGTERM)

    def _result(self, step: Step) -> dict[str, Any]:
        """Run or skip a step; return the dictionary that becomes its line of the results file."""
        started = time.time()
        line: dict[str, Any] = {"step": step.number, "what": step.what}
        reason = step.reason_to_skip(self.setting.gpus)
        if self.stopped_by:
            reason = f"{signal.Signals(self.stopped_by).name} stopped the measurements"
        if reason:
            line |= {"state": "skipped", "value": f"skipped: {reason}", "seconds": 0.0}
        else:
            log, results = (self._new_file(step, suffix) for suffix in ("log", "jsonl"))
            limit_s = step.time_limit(self.setting.gpus) * self.patience
            try:
                outcome = self._run_step(step, limit_s, log, results)
            except (OSError, ValueError) as error:  # The disk may be full.
                outcome = Outcome(127, fault=f"the step cannot be started, got {error}")
            line |= summarize(outcome, read_parts(results), limit_s, self.setting.gpus)
            line |= {"seconds": round(time.time() - started, 1), "log": str(log)}
        return line | {"gpus": self.setting.gpus, "time": time.strftime("%F %T%z")}

    def _new_file(self, step: Step, suffix: str) -> Path:
        """Return the path of a step's log or results; delete an existing file of that name."""
        path = self.out / LOGS / f"{step.what.replace(' ', '-')}.{suffix}"
        path.unlink(missing_ok=True)
        return path

    def _run_step(self, step: Step, limit_s: float, log: Path, results: Path) -> Outcome:
        """Run a step in a process under a supervisor; return how the step ended."""
        scratch = self.out / LOGS / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        setting = replace(self.setting, scratch=scratch, limit_s=limit_s)
        module = ("-m", "tools.gpu_day.run_step", step.module, setting.to_json(), str(results))
        variables = {
            "PATH": f"{Path(self.python).parent}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "tools.gpu_day.supervisor", str(limit_s), str(log)]
        if step.command:
            command += [word.replace("{results}", str(results)) for word in step.command]
        else:
            command += [self.python, *module]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches only this process, which ends the step.
            preexec_fn=partial(end_with_parent, signal.SIGTERM, os.getpid()),
        )
        self._supervisor = process
        if self.stopped_by:  # A signal arrived before self._supervisor was set.
            process.send_signal(signal.SIGTERM)
        answer, _ = process.communicate()
        self._supervisor = None
        supervisor.end_all()
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            values = json.loads(answer)
            return Outcome(**{**values, "stuck": tuple(values["stuck"])})
        except (ValueError, TypeError, KeyError):
            return Outcome(None, f"the end of its supervisor (exit code {process.returncode})")


def summarize(outcome: Outcome, parts: Sequence[Part], limit_s: float, gpus: int) -> dict[str, Any]:
    """Return what the result line of a step says: state, value, and results of the step's parts.

    The state is "failed" if the step or one of its parts failed.  Otherwise, with GPUs, the state
    is "measured" if at least one part was measured.  In all other cases, the state is that of the
    first part, which is the main one.
    """
    faults = _faults(outcome, parts, limit_s)
    by_state: dict[str, dict[str, Any]] = {"measured": {}, "failed": {}, "skipped": {}}
    for part in parts:
        by_state[part.state][part.what] = part.value
    failures = [*faults, *(f"{what}: {text}" for what, text in by_state["failed"].items())]
    state = "failed" if failures else parts[0].state
    if not failures and gpus and by_state["measured"]:
        state = "measured"
    line: dict[str, Any] = {"state": state, "value": by_state["measured"]}
    if failures:
        line["value"] = "; ".join(failures)
    elif state == "skipped":
        line["value"] = f"skipped: {parts[0].value}"
    line |= by_state
    if outcome.remaining:
        line["remaining"] = outcome.remaining
    return line


def _faults(outcome: Outcome, parts: Sequence[Part], limit_s: float) -> list[str]:
    """Return messages about faults of a step as a whole, for example an exceeded time limit."""
    faults = []
    if outcome.fault:
        faults.append(outcome.fault)
    elif outcome.ended_by == "limit":
        faults.append(f"the step exceeded its time limit of {limit_s:g} s and was ended")
    elif outcome.ended_by:
        faults.append(f"the step was ended by {outcome.ended_by}")
    elif outcome.code and not any(part.state == "failed" for part in parts):
        faults.append(f"the step ended with exit code {outcome.code}")
    elif not parts:
        faults.append("the step ended without a result")
    if outcome.stuck:
        numbers = ", ".join(map(str, outcome.stuck))
        faults.append(f"SIGKILL did not end the processes with the ids {numbers}; see dmesg")
    return faults


def describe(line: dict[str, Any]) -> str:
    """Format the result line of a step as text for the terminal."""
    value = line["value"]
    if isinstance(value, dict):
        value = "; ".join(f"{what}: {format_value(found)}" for what, found in value.items())
    return f"{line['state']} ({line['seconds']:g} s)  {value}"


def format_value(value: Any) -> str:
    """Format a measured value for a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {format_value(found)}" for key, found in value.items())
    if isinstance(value, list):
        return ", ".join(map(format_value, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
