# SPDX-License-Identifier: Apache-2.0
"""Facts about the whole run, including its steps before a resume, such as the first loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from training.faults import TrainingError

if TYPE_CHECKING:
    from launch.ranks.comm import Comm

MAX_RISE = 0.05
"""Largest rise of the loss, as a fraction of the first loss, that gives no warning.  The losses of
two batches differ by about as much."""


@dataclass
class History:
    """Facts about a run since its first step, saved in every checkpoint and equal on all ranks."""

    margin: float | None = None
    """Fraction of the margin at the step of ``first_loss``.

    None before the first log line, and after a log interval in which the fraction changed."""
    first_loss: float = 0.0
    """Mean loss over all ranks of the first step with the margin fraction ``margin``."""
    last_loss: float = 0.0
    """Mean loss of the last log interval in which all steps had the same fraction of the margin."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Bad images that other images replaced: problem by number of the image (``RecordSet.ids``).
    The numbers are strings because they are keys in a JSON file."""

    best_value: float | None = None
    """Best value of the metric ``eval.best`` so far; None before the first verification."""
    best_step: int = 0
    """Step of ``best_value``."""
    verified_step: int = 0
    """Step of the last verification; 0 if the run has no metric ``eval.best``."""

    def add_losses(self, first: float, mean: float, margins: tuple[float, float]) -> None:
        """Record the losses of a log interval.

        Parameters
        ----------
        first, mean
            Loss of the first step and mean loss of all steps of the interval.
        margins
            Fractions of the margin at the first and at the last step of the interval.
        """
        # A larger margin raises the loss.  So only losses with the same margin are compared.
        if margins[0] != self.margin:
            self.margin, self.first_loss = margins[0], first
        if margins[0] == margins[1]:
            self.last_loss = mean
        else:
            self.margin = None

    @property
    def warning(self) -> str:
        """Warning that the loss has risen by more than MAX_RISE; "" if it has not."""
        rise = self.last_loss - self.first_loss
        if self.margin is None or not rise > MAX_RISE * abs(self.first_loss):
            return ""
        return (
            f"warning: the loss rose from {self.first_loss:.4g} to {self.last_loss:.4g}, so the "
            "net has not learned; start again (run.resume=false) with a lower optim.lr, a longer "
            "optim.warmup or train.margin_warmup, or from trained weights with train.pretrained"
        )

    def add_skipped(self, number: int, problem: str) -> bool:
        """Record a skipped image; return whether the image is new."""
        is_new = str(number) not in self.skipped
        self.skipped.setdefault(str(number), problem)
        return is_new


def exchange_skipped(
    comm: Comm,
    history: History,
    found: Iterable[tuple[int, str]],
    *,
    permitted: int | None,
    say: Callable[[str], Any],
) -> None:
    """Record the images that any rank has skipped; all ranks call this function together.

    Parameters
    ----------
    found
        Images that this rank has skipped: pairs (number of the image, problem).
    permitted
        Number of images that may be bad; None: no limit.
    say
        Function that writes a line to the log.

    Raises
    ------
    TrainingError
        On all ranks, if more images are bad than permitted.
    """
    # Horovod: every rank records the images of all ranks in the order of the ranks.
    for images in comm.gather_json([[number, problem] for number, problem in found]):
        for number, text in images:
            if history.add_skipped(number, text):
                say(f"skipped bad image {len(history.skipped)}: {text}")
    if permitted is not None and len(history.skipped) > permitted:
        raise TrainingError(
            f"data.max_bad_fraction: permits {permitted} bad images, got "
            f"{len(history.skipped)} on all ranks together, of which the last is: "
            f"{list(history.skipped.values())[-1]}; repair the records or raise "
            "data.max_bad_fraction",
            usage=True,
        )
