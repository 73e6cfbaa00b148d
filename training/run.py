# SPDX-License-Identifier: Apache-2.0
"""Constants and progress of a run: folder, position, end and schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np

from training.history import History

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint


@dataclass
class Progress:
    """Position of a run, saved in every checkpoint.

    ``images`` counts the images of all ranks since step 0, ``consumed`` the images of all ranks in
    the current epoch.
    """

    step: int = 0
    images: int = 0
    epoch: int = 0
    consumed: int = 0


@dataclass(frozen=True, kw_only=True)
class Run:
    """Constants and progress of a run, equal on all ranks; the loop updates ``progress``."""

    folder: Path
    """Folder of the run, for its checkpoints and logs."""
    checkpoint: Checkpoint | None = None
    """Checkpoint that the run resumes from; None for a new run."""
    progress: Progress
    history: History = field(default_factory=History)
    """Facts about the run since its first step; the loop updates them."""
    seed: int
    global_batch_size: int
    """Number of images that all ranks together process per step."""
    epoch_images: int
    """Number of images per epoch when the run started, a multiple of its global batch size."""
    end_images: int
    """Number of images, counted over all ranks, after which the run ends."""
    lr: Callable[[int], float]
    """Function from the number of images that all ranks have used so far to the learning rate."""
    margin: Callable[[int], float]
    """Function from the number of images that all ranks have used so far to the fraction of the
    margin."""
    step_images: int = 0
    """Number of images that all ranks together processed per step when the run started."""
    clip_norm: float = 0.0
    """Upper bound of the global norm of the averaged gradients; 0 disables clipping."""
    id: str = ""
    """Identifier of the run, which its checkpoints state; a resumed run keeps its identifier."""
    permitted_bad_images: int | None = None
    """Number of images that may be bad; None: the first bad image ends the run."""
    verifies_first: bool = False
    """Whether a resumed run verifies before its first step, because its checkpoint was saved before
    the verification of the same step."""
    notices: tuple[str, ...] = ()
    """Lines to print at the start of the run; empty on ranks other than 0."""


def reseed(seed: int, step: int, rank: int) -> None:
    """Seed MXNet's random generator from the seed of the run, the step and the rank."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(1)
    mx.random.seed(int(words[0]) & 0x7FFFFFFF)
