# SPDX-License-Identifier: Apache-2.0
"""Learning rate and margin as pure functions of the images seen.

Images, not steps: another number of ranks or another batch size moves no learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi


def learning_rate(
    images: int,
    schedule: str,
    lr: float,
    end: int,
    *,
    warmup: int = 0,
    milestones: Sequence[int] = (),
    decay: float = 0.1,
    power: float = 2.0,
    final_lr: float = 0.0,
) -> float:
    """Return the rate for the batch that begins after ``images`` images.

    Parameters
    ----------
    images
        Images of all ranks used so far.
    schedule
        "step", "cosine" or "polynomial".
    lr
        Rate after the warm-up.
    end
        Images of the whole run.
    warmup
        Images over which the rate rises linearly from 0.
    milestones
        step: images after each of which the rate is multiplied by ``decay``.
    power, final_lr
        polynomial: ``final_lr + (lr - final_lr) * (1 - progress) ** power``, where progress runs
        from 0 at the end of the warm-up to 1 at ``end``.  cosine: half a cosine between the two.
    """
    if images < warmup:
        return lr * images / warmup
    if schedule == "step":
        return lr * decay ** sum(images >= m for m in milestones)
    progress = min(1.0, (images - warmup) / max(1, end - warmup))
    if schedule == "cosine":
        return final_lr + (lr - final_lr) * 0.5 * (1 + cos(pi * progress))
    if schedule == "polynomial":
        return final_lr + (lr - final_lr) * (1 - progress) ** power
    raise ValueError(f"optim.schedule: must be 'step', 'cosine' or 'polynomial', got {schedule!r}")


def margin_fraction(images: int, start: int = 0, warmup: int = 0) -> float:
    """Return how much of the margin is on: 0 until ``start``, then linearly to 1."""
    if images < start:
        return 0.0
    return min(1.0, (images - start) / warmup) if warmup else 1.0
