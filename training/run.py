# SPDX-License-Identifier: Apache-2.0
"""A run: where it lives, where it stands, where it ends, and its schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    images: int = 0
    epoch: int = 0
    consumed: int = 0


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run, alike on all ranks; the loop moves ``progress``."""

    folder: Path
    """The run folder."""
    checkpoint: Checkpoint | None = None
    """What the run resumes from; None at its beginning."""
    progress: Progress
    seed: int
    global_batch_size: int
    """Images of all ranks per step."""
    epoch_images: int
    """Images of an epoch when the run began, in whole steps."""
    end_images: int
    """Images of all ranks after which the run ends."""
    lr: Callable[[int], float]
    """Learning rate by the images used so far."""
    margin: Callable[[int], float]
    """Share of the margin by the images used so far."""
    clip_norm: float = 0.0
    """Largest global norm of the averaged gradients; 0 clips nothing."""
    notices: tuple[str, ...] = ()
    """Sentences for the log; on rank 0 alone."""


def reseed(seed: int, step: int, rank: int) -> None:
    """Seed MXNet's generator from the place in the run."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(1)
    mx.random.seed(int(words[0]) & 0x7FFFFFFF)
