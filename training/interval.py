# SPDX-License-Identifier: Apache-2.0
"""Measurements over one log interval, and over the lifetime of the training process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mxnet as mx


@dataclass
class Totals:
    """Totals of this process since the run started or resumed.

    ``images`` counts the images of all ranks, ``seconds`` the training time, and ``idle_seconds``
    the time in which the device waited for data.  ``final_loss`` is the mean loss in the last log
    line, None before the first log line.
    """

    images: int = 0
    seconds: float = 0.0
    idle_seconds: float = 0.0
    final_loss: float | None = None

    @property
    def images_per_second(self) -> float:
        """Images of all ranks per second, without the time of verification and checkpoints."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def data_wait_fraction(self) -> float:
        """Fraction of the training time in which the device waited for data."""
        return self.idle_seconds / self.seconds if self.seconds else 0.0


@dataclass
class Interval:
    """Results of this rank's steps since the last log line, and times in seconds."""

    start_time: float
    losses: list[mx.nd.NDArray] = field(default_factory=list)
    """Mean loss of each step, (1,) each, on the device."""
    cosines: list[mx.nd.NDArray] = field(default_factory=list)
    """Mean cosine of each step, (1,) each, on the device."""
    accuracy: mx.nd.NDArray | None = None
    """Training accuracy of the last step, (1,), on the device; None if the head has no logits."""
    margins: list[float] = field(default_factory=list)
    """Fraction of the margin of each step."""
    skipped: dict[int, str] = field(default_factory=dict)
    """Problem of each bad image that another image of its batch replaced, by number of the image.
    The images are those of the batches since the last log line."""
    idle_seconds: float = 0.0
    pause_seconds: float = 0.0
