# SPDX-License-Identifier: Apache-2.0
"""State of a run: folder, progress, end and schedules."""

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
    """Position of a run; every checkpoint contains it.

    ``images`` counts the images of all ranks since step 0, ``consumed`` those of the current epoch.
    """

    step: int = 0
    images: int = 0
    epoch: int = 0
    consumed: int = 0


@dataclass(frozen=True, kw_only=True)
class Run:
    """Constants and progress of a run, the same on all ranks; the loop updates ``progress``."""

    folder: Path
    """Run folder."""
    checkpoint: Checkpoint | None = None
    """Checkpoint that the run resumes from; None for a new run."""
    progress: Progress
    seed: int
    global_batch_size: int
    """Number of images of all ranks per step."""
    epoch_images: int
    """Number of images per epoch when the run started, a multiple of its global batch size."""
    end_images: int
    """Number of images of all ranks at the end of the run."""
    lr: Callable[[int], float]
    """Learning rate as a function of the images of all ranks so far."""
    margin: Callable[[int], float]
    """Fraction of the margin as a function of the images of all ranks so far."""
    clip_norm: float = 0.0
    """Upper bound of the global norm of the averaged gradients; 0 disables clipping."""
    notices: tuple[str, ...] = ()
    """Lines for the log; empty on ranks other than 0."""


def reseed(seed: int, step: int, rank: int) -> None:
    """Seed MXNet's generator from the seed of the run, the step and the rank."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(1)
    mx.random.seed(int(words[0]) & 0x7FFFFFFF)
