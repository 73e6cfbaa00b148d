# SPDX-License-Identifier: Apache-2.0
"""Start training runs for the GPU measurements, and read their results."""

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
"""Overrides of demo.yaml for runs whose speed does not matter."""


@dataclass(frozen=True)
class Run:
    """Training run that has ended, normally or with an error."""

    ended: Ended
    folder: Path

    @property
    def losses(self) -> dict[int, float]:
        """Return the logged losses by training step."""
        return {line["step"]: line["loss"] for line in metrics(self.folder) if "loss" in line}

    @property
    def summary(self) -> dict[str, Any]:
        """Return the content of summary.json; empty if the file does not exist."""
        path = self.folder / "summary.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def require_finished(self) -> None:
        """Raise RuntimeError with the last line of the run's output if the run did not finish."""
        if self.ended.code or self.summary.get("status") != "finished":
            raise RuntimeError(
                f"the training run ended with exit code {self.ended.code}; last line: "
                f"{self.ended.last_line()}"
            )

    def speed(self) -> dict[str, Any]:
        """Return images/s, the fraction of time spent waiting for data, and the decode mode."""
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
    """Train with a configuration file on the record set of the setting; return the ended run.

    Parameters
    ----------
    name
        Name of the run; the run folder is in the scratch folder.
    overrides
        Configuration overrides of the form ``section.key=value``.
    ranks
        Number of ranks; more than one rank runs under ``launch.local``.
    cfg
        Configuration file.
    limit_s, variables, while_running
        Arguments of `commands.run`.
    """
    runs = setting.scratch / "runs"
    start = [str(ROOT / "run_train.py")]
    if ranks > 1:
        start = ["-m", "launch.local", "-np", str(ranks)]
    paths = [f"data.records={setting.records}", f"run.dir={runs}", f"run.name={name}"]
    ended = run(
        python(*start, "--cfg", cfg, *paths, *overrides),
        limit_s=limit_s,
        variables=variables,
        while_running=while_running,
    )
    return Run(ended, runs / f"{name}-001")


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the parsed lines of a run's metrics.jsonl, except an incomplete last line."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def resume_step(ended: Ended) -> int:
    """Find in a run's output the training step at which the run resumed; 0 for a new run."""
    match = re.search(r"^resumed at step (\d+)", ended.text, re.MULTILINE)
    return int(match[1]) if match else 0


def relative_difference(
    losses: Mapping[int, float], reference: Mapping[int, float], steps: int
) -> float:
    """Return the largest relative difference between the losses of two runs in the first steps.

    Raises
    ------
    RuntimeError
        If a run did not log the losses of all these steps.
    """
    missing = [s for s in range(1, steps + 1) if s not in losses or s not in reference]
    if missing:
        raise RuntimeError(f"no loss was logged for step {missing[0]}")
    return max(abs(losses[s] - reference[s]) / abs(reference[s]) for s in range(1, steps + 1))


def checkpoints(folder: Path) -> Sequence[Path]:
    """Return the checkpoint folders of a run, oldest first."""
    return sorted((folder / "checkpoints").glob("step-*"))
