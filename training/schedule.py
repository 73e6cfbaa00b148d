# SPDX-License-Identifier: Apache-2.0
"""Learning rate and margin fraction as pure functions of the number of images so far.

Schedules count images instead of steps, so they do not depend on the batch size and the number of
ranks.
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
    """Return the learning rate of the batch that starts after ``images`` images.

    Parameters
    ----------
    images
        Number of images that all ranks together have processed so far.
    schedule
        "step", "cosine" or "polynomial".
    lr
        Learning rate after the warm-up.
    end
        Number of images of all ranks after which the run ends.
    warmup
        Number of images of all ranks over which the rate rises linearly from 0 to ``lr``.
    milestones
        For "step": numbers of images of all ranks at which the rate is multiplied by ``decay``.
    power, final_lr
        For "polynomial" the rate is ``final_lr + (lr - final_lr) * (1 - progress) ** power``, where
        ``progress`` rises linearly from 0 after the warm-up to 1 at ``end``.  For "cosine" the rate
        falls from ``lr`` after the warm-up to ``final_lr`` at ``end``, along half a cosine period.
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
    """Return the fraction of the margin in use: 0 until ``start``, then rising linearly to 1.

    Parameters
    ----------
    images, start, warmup
        Numbers of images, counted over all ranks: images so far, images before the rise starts, and
        images over which the fraction rises from 0 to 1.
    """
    if images < start:
        return 0.0
    return min(1.0, (images - start) / warmup) if warmup else 1.0
