# SPDX-License-Identifier: Apache-2.0
"""Training runs that steps start, and what they leave."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.gpu_day.commands import Ended, python, run
from tools.gpu_day.setting import ROOT, Setting

SMALL = (
    "data.batch_size=16",
    "net.width=0.25",
    "train.log_every=1",
    "train.checkpoint_every=1000",
    "eval.sets=[]",
)
"""Overrides of demo.yaml for runs that are about something else than their speed."""


@dataclass(frozen=True)
class Run:
    """A run that has ended."""

    ended: Ended
    folder: Path

    @property
    def losses(self) -> dict[int, float]:
        """Return the logged losses by step."""
        return {line["step"]: line["loss"] for line in metrics(self.folder) if "loss" in line}

    @property
    def summary(self) -> dict[str, Any]:
        """Return summary.json; empty if the run did not come to it."""
        path = self.folder / "summary.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def require_finished(self) -> None:
        """Raise RuntimeError with what the run said last if it is not finished."""
        if self.ended.code or self.summary.get("status") != "finished":
            raise RuntimeError(f"code {self.ended.code}, {self.ended.last_line()}")

    def speed(self) -> dict[str, Any]:
        """Return images/s, the share of time that data was waited for, and the decode mode."""
        found = self.summary
        return {
            "images/s": round(found["images_per_second"], 1),
            "data wait": f"{100 * found['data_wait_fraction']:.1f} %",
            "decode": found["versions"]["decode"],
        }


def train(
    setting: Setting,
    name: str,
    *overrides: str,
    ranks: int = 1,
    cfg: str = "demo.yaml",
    limit_s: float,
    variables: Mapping[str, str] | None = None,
    while_running: Callable[[subprocess.Popen], object] | None = None,
) -> Run:
    """Run a configuration on the images of the day.

    Parameters
    ----------
    name
        Of the run, whose folder lies in the scratch folder.
    overrides
        Settings, ``section.key=value``.
    ranks
        One runs without a launcher, several under ``launch.local``.
    cfg, limit_s, variables, while_running
        Configuration; the others as `commands.run` has them.
    """
    runs = setting.scratch / "runs"
    start = [ROOT / "run_train.py"] if ranks == 1 else ["-m", "launch.local", "-np", str(ranks)]
    places = [f"data.records={setting.records}", f"run.dir={runs}", f"run.name={name}"]
    ended = run(
        python(*start, "--cfg", cfg, *places, *overrides),
        limit_s=limit_s,
        variables=variables,
        while_running=while_running,
    )
    return Run(ended, runs / f"{name}-001")


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a run's metrics.jsonl so far."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def resumed_at(ended: Ended) -> int:
    """Return the step at which a run says that it resumes, 0 if it began."""
    match = re.search(r"^resumed at step (\d+)", ended.text, re.MULTILINE)
    return int(match[1]) if match else 0


def off_by(losses: Mapping[int, float], true: Mapping[int, float], steps: int) -> float:
    """Return the largest relative difference of the losses of the first steps.

    Raises
    ------
    RuntimeError
        If one of the runs has not logged all of them.
    """
    missing = [s for s in range(1, steps + 1) if s not in losses or s not in true]
    if missing:
        raise RuntimeError(f"no loss was logged of step {missing[0]}")
    return max(abs(losses[s] - true[s]) / abs(true[s]) for s in range(1, steps + 1))


def checkpoints(folder: Path) -> Sequence[Path]:
    """Return the checkpoints of a run, the oldest first."""
    return sorted((folder / "checkpoints").glob("step-*"))
