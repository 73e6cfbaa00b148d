# SPDX-License-Identifier: Apache-2.0
"""True accept rate at a given false accept rate, from scores in which higher means more alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
HIGH_FARS = (1e-3, 1e-2, 1e-1)
"""False accept rates for sets of a few thousand pairs."""


@dataclass(frozen=True)
class RocPoint:
    """Point of a ROC curve.

    Parameters
    ----------
    far
        False accept rate that was asked for.
    tar
        True accept rate at a false accept rate of at most `far`; None if there are no genuine pairs
        or fewer than ``1 / far`` impostor pairs.
    threshold
        A pair is accepted if its score is higher; None if `tar` is None.
    false_accepts
        Number of accepted impostor pairs; None if `tar` is None.
    """

    far: float
    tar: float | None
    threshold: float | None
    false_accepts: int | None


def allowed_false_accepts(far: float, impostors: int) -> int:
    """Return how many of `impostors` impostor pairs may be accepted at a rate of at most `far`.

    Raises
    ------
    ValueError
        If the rate is not above 0 and below 1.
    """
    if not 0 < far < 1:
        raise ValueError(
            f"false accept rate: must be above 0 and below 1, got {far}; 1e-4 is usual"
        )
    allowed = int(far * impostors) + 1
    # The factor tolerates rounding: 1e-6 times 8,000,000 may be slightly below 8.
    while allowed > far * impostors * (1 + 1e-12):
        allowed -= 1
    return allowed


def highest_needed(fars: Sequence[float], impostors: int) -> int:
    """Return how many of the highest impostor scores `roc_points` needs for these rates."""
    return max(allowed_false_accepts(far, impostors) for far in fars) + 1


def roc_points(
    genuine: np.ndarray, highest_impostors: np.ndarray, impostors: int, fars: Sequence[float] = FARS
) -> list[RocPoint]:
    """Return a point of the ROC curve for each false accept rate.

    The threshold is the lowest impostor score such that at most the allowed number of impostor
    pairs has a higher score.  So the false accept rate is never above the one asked for.

    Parameters
    ----------
    genuine
        Scores of pairs of one person, in any order, (G,).
    highest_impostors
        The highest scores of pairs of two people, in descending order; at least
        `highest_needed(fars, impostors)` scores, or all.
    impostors
        Number of all pairs of two people.
    """
    genuine = np.sort(np.asarray(genuine))
    ascending = highest_impostors[::-1]
    points = []
    for far in fars:
        allowed = allowed_false_accepts(far, impostors)
        if not len(genuine) or allowed < 1:
            points.append(RocPoint(far, None, None, None))
            continue
        threshold = highest_impostors[allowed]
        accepted = len(genuine) - np.searchsorted(genuine, threshold, side="right")
        false = len(ascending) - np.searchsorted(ascending, threshold, side="right")
        points.append(RocPoint(far, float(accepted / len(genuine)), float(threshold), int(false)))
    return points
