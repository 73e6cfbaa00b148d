# SPDX-License-Identifier: Apache-2.0
"""Run the steps one after the other, whatever becomes of each, and write a line for each.

Standard library only: the interpreter of the environment runs the steps alone.
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
from tools.gpu_day import keeper
from tools.gpu_day.keeper import Outcome
from tools.gpu_day.results import Part, append_line, read_parts
from tools.gpu_day.setting import ROOT, Setting

if TYPE_CHECKING:
    from tools.gpu_day.steps import Step

LINES = "gpu_day.jsonl"
LOGS = "gpu_day"


@dataclass
class Day:
    """The steps of one day.

    Parameters
    ----------
    python
        Interpreter of the environment that is examined.
    out
        Folder of LINES and LOGS.
    setting
        What the steps are told; its scratch folder is replaced by one for each step.
    patience
        Factor on the time limits, for slow machines.
    """

    python: str
    out: Path
    setting: Setting
    patience: float = 1.0

    def __post_init__(self) -> None:
        self._keeper: subprocess.Popen[str] | None = None
        self.stopped_by = 0
        """Number of the signal that ended the day, 0 if none did."""

    def run(self, steps: Sequence[Step]) -> list[dict[str, Any]]:
        """Do the steps; return their lines.

        SIGINT, SIGTERM and SIGHUP end the step in hand with all its processes, and skip the others.
        """
        (self.out / LOGS).mkdir(parents=True, exist_ok=True)
        keeper.adopt_orphans()  # should the keeper be killed, what it kept is ours
        for number in keeper.ENDINGS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, self._stop)
        lines = []
        for step in steps:
            print(f"step {step.what} ...", flush=True)
            line = self._line(step)
            append_line(self.out / LINES, line)
            print(f"step {step.what}: {said(line)}", flush=True)
            lines.append(line)
        return lines

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.stopped_by = self.stopped_by or number
        if self._keeper is not None:
            self._keeper.send_signal(signal.SIGTERM)

    def _line(self, step: Step) -> dict[str, Any]:
        """Do a step; return its line."""
        started = time.time()
        line: dict[str, Any] = {"step": step.number, "what": step.what}
        why = step.reason_to_skip(self.setting.gpus)
        if self.stopped_by:
            why = f"the day was stopped by {signal.Signals(self.stopped_by).name}"
        if why:
            line |= {"state": "skipped", "value": f"skipped: {why}", "seconds": 0.0}
        else:
            log, results = (self._file(step, ending) for ending in ("log", "jsonl"))
            limit_s = step.time_limit(self.setting.gpus) * self.patience
            try:
                outcome = self._kept(step, limit_s, log, results)
            except (OSError, ValueError) as error:  # a full disk, too many processes
                outcome = Outcome(127, fault=f"cannot be started, got {error}")
            line |= summary(outcome, read_parts(results), limit_s, self.setting.gpus)
            line |= {"seconds": round(time.time() - started, 1), "log": str(log)}
        return line | {"gpus": self.setting.gpus, "time": time.strftime("%F %T%z")}

    def _file(self, step: Step, ending: str) -> Path:
        """Return the path of a file of a step, which is not there."""
        path = self.out / LOGS / f"{step.what.replace(' ', '-')}.{ending}"
        path.unlink(missing_ok=True)
        return path

    def _kept(self, step: Step, limit_s: float, log: Path, results: Path) -> Outcome:
        """Run a step under a keeper."""
        scratch = self.out / LOGS / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        setting = replace(self.setting, scratch=scratch, limit_s=limit_s)
        module = ("-m", "tools.gpu_day.run_step", step.module, setting.to_json(), str(results))
        variables = {
            "PATH": f"{Path(self.python).parent}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "tools.gpu_day.keeper", str(limit_s), str(log)]
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
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
            preexec_fn=partial(end_with_parent, signal.SIGTERM, os.getpid()),
        )
        self._keeper = process
        if self.stopped_by:  # between the start and the line above
            process.send_signal(signal.SIGTERM)
        answer, _ = process.communicate()
        self._keeper = None
        keeper.end_all()
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            values = json.loads(answer)
            return Outcome(**{**values, "stuck": tuple(values["stuck"])})
        except (ValueError, TypeError, KeyError):
            return Outcome(None, f"the end of its keeper (code {process.returncode})")


def summary(outcome: Outcome, parts: Sequence[Part], limit_s: float, gpus: int) -> dict[str, Any]:
    """Return state, value and parts of a step as its line has them.

    A step is measured if some part of it is and none failed.  Without a GPU its first part decides,
    which is what the step is for.
    """
    faults = []
    if outcome.fault:
        faults.append(outcome.fault)
    elif outcome.ended_by == "limit":
        faults.append(f"not done within {limit_s:g} s, so it was ended")
    elif outcome.ended_by:
        faults.append(f"ended by {outcome.ended_by}")
    elif outcome.code and not any(part.state == "failed" for part in parts):
        faults.append(f"ended with code {outcome.code}")
    elif not parts:
        faults.append("ended without a result")
    if outcome.stuck:
        numbers = ", ".join(map(str, outcome.stuck))
        faults.append(f"processes hang in the kernel and cannot be ended: {numbers}")
    by_state: dict[str, dict[str, Any]] = {"measured": {}, "failed": {}, "skipped": {}}
    for part in parts:
        by_state[part.state][part.what] = part.value
    failures = [*faults, *(f"{what}: {why}" for what, why in by_state["failed"].items())]
    state = "failed" if failures else parts[0].state
    if not failures and gpus and by_state["measured"]:
        state = "measured"
    line: dict[str, Any] = {"state": state, "value": by_state["measured"]}
    if failures:
        line["value"] = "; ".join(failures)
    elif state == "skipped":
        line["value"] = f"skipped: {parts[0].value}"
    line |= by_state
    if outcome.left:
        line["left"] = outcome.left
    return line


def said(line: dict[str, Any]) -> str:
    """Return the line of a step as the terminal shows it."""
    value = line["value"]
    if isinstance(value, dict):
        value = "; ".join(f"{what}: {text(found)}" for what, found in value.items())
    return f"{line['state']} ({line['seconds']:g} s)  {value}"


def text(value: Any) -> str:
    """Return a measured value as a table shows it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {text(found)}" for key, found in value.items())
    if isinstance(value, list):
        return ", ".join(map(text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
