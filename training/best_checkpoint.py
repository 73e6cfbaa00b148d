# SPDX-License-Identifier: Apache-2.0
"""Keep the checkpoint of the best verification, and end a run that no longer improves.

The folder ``best`` of a run holds checkpoints ``step-<8 digits>``.  The previous best
checkpoint is removed only after a periodic checkpoint has recorded the better one.  A run that
resumes from an older periodic checkpoint therefore still finds the best checkpoint that this
periodic checkpoint records.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import checkpoint_folders as files

if TYPE_CHECKING:
    from training.best_metric import BestMetric
    from training.history import History

FOLDER = "best"
"""Name of the folder of best checkpoints in a run folder."""


@dataclass(frozen=True)
class BestCheckpoint:
    """Rule that decides after each verification what to save and whether to end the run.

    Parameters
    ----------
    metric
        Metric to compare.
    history
        Best value and its step; equal on all ranks and saved in every checkpoint.
    save
        Function that writes the checkpoint; see ``save`` of `training.loop.Loop`.
    verify_every
        Number of steps between two verifications.
    patience
        Number of verifications without a better value after which the run ends; 0: never.
    """

    metric: BestMetric
    history: History
    save: Callable[[], Any]
    verify_every: int
    patience: int = 0

    def update(self, step: int, verification: Mapping[str, Mapping[str, Any]]) -> str:
        """Record the verification of a step; return a line for the log if the value is the best.

        Return "" if the value is not better than the best value.
        """
        history, value = self.history, self.metric.value(verification)
        history.verified_step = step
        if not self.metric.is_better(value, history.best_value):
            return ""
        before = (
            "the first verification"
            if history.best_value is None
            else f"before: {history.best_value:.4f} at step {history.best_step}"
        )
        history.best_value, history.best_step = value, step
        return f"best {self.metric.text} {value:.4f} at step {step} ({before})"

    @property
    def is_exhausted(self) -> bool:
        """Whether the last ``patience`` verifications have brought no better value."""
        history = self.history
        if not self.patience or history.best_value is None:
            return False
        counts = [step // self.verify_every for step in (history.verified_step, history.best_step)]
        return counts[0] - counts[1] >= self.patience

    @property
    def reason(self) -> str:
        """Sentence that says why the run ends early."""
        return (
            f"stopped early: {self.metric.text} has not improved in {self.patience} verifications, "
            f"since step {self.history.best_step}"
        )

    def report(self, folder: Path) -> dict[str, Any]:
        """Return the entry ``best`` of summary.json; {} before the first verification."""
        history = self.history
        if history.best_value is None:
            return {}
        return {
            "best": {
                "metric": self.metric.text,
                "value": history.best_value,
                "step": history.best_step,
                "checkpoint": str(files.step_folder(folder / FOLDER, history.best_step)),
            }
        }


def keep_only(folder: Path, step: int) -> None:
    """Keep only the checkpoint of ``step`` in ``folder``; without this checkpoint, keep all."""
    kept = files.step_folder(folder, step)
    if kept.is_dir():
        for found in files.step_folders(folder):
            if found != kept:
                shutil.rmtree(found, ignore_errors=True)


def restore(folder: Path, step: int, history: Mapping[str, Any]) -> str:
    """Prepare the folder of best checkpoints for a run that resumes at a step.

    Incomplete checkpoints, and checkpoints of steps after ``step``, are removed.

    Parameters
    ----------
    folder
        Folder ``best`` of the run; it need not exist.
    history
        ``history`` of the checkpoint that the run resumes from.

    Outputs
    -------
    What is wrong with the best checkpoint that ``history`` records; "" if nothing is wrong.

    Raises
    ------
    UnreadableCheckpoint
        If a checkpoint exists and cannot be read.
    """
    files.remove_unfinished(folder)
    for found in files.step_folders(folder):
        if int(found.name.removeprefix("step-")) > step:
            shutil.rmtree(found, ignore_errors=True)
    if history.get("best_value") is None:
        return ""
    try:
        files.verify(files.step_folder(folder, history["best_step"]))
    except files.DamagedCheckpoint as error:
        return error.fault
    return ""
