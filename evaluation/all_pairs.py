# SPDX-License-Identifier: Apache-2.0
"""ROC over all pairs of N embeddings, computed block by block.

A genuine pair shows one known person.  An impostor pair shows two people, at least one of whom is
known.  Two embeddings of unknown people are no pair, because they may show the same person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evaluation.roc import highest_needed, roc_points
from evaluation.row_sources import ArrayRows
from evaluation.score_statistics import HighestScores, score_blocks

UNKNOWN_PERSON = -1
"""ID that stands for every person who is not known."""
BLOCK_ROWS = 2048
MAX_SCORES = 1 << 26
"""Largest number of genuine scores that are kept, and largest number of impostor scores.

This many float32 scores occupy 256 MiB.
"""


class AllPairsError(ValueError):
    """The pairs cannot be scored; the message is one sentence for the user."""


def evaluate_all_pairs(
    embeddings: np.ndarray, people: np.ndarray, fars: Sequence[float], where: str = "people"
) -> dict[str, Any]:
    """Compute the true accept rate at each false accept rate.

    Parameters
    ----------
    where
        Prefix of error messages, for example the file that names the people.

    Inputs
    ------
    embeddings (N, E) float32 of unit length; people (N,) int, the ID of each embedding's person, or
    UNKNOWN_PERSON.

    Outputs
    -------
    ``genuine_pairs``, ``impostor_pairs`` and ``roc``, a list of dicts with the fields of
    `evaluation.roc.RocPoint`.

    Raises
    ------
    AllPairsError
        If there is no genuine pair or no impostor pair, or if too many scores must be kept.
    """
    known = np.flatnonzero(people != UNKNOWN_PERSON)
    order = np.concatenate(
        [
            known[np.argsort(people[known], kind="stable")],
            np.flatnonzero(people == UNKNOWN_PERSON),
        ]
    )
    ordered, labels = embeddings[order], people[order[: len(known)]]
    # Row i has its genuine pairs in the columns i + 1 to ends[i] - 1, and its impostor pairs from
    # column ends[i] on.
    ends = np.searchsorted(labels, labels, side="right")
    genuine_count = int((ends - np.arange(len(known)) - 1).sum())
    impostors = int((len(order) - ends).sum())
    _check_counts(where, genuine_count, impostors, fars)
    highest = HighestScores(highest_needed(fars, impostors))
    genuine = [
        scores
        for start in range(0, len(known), BLOCK_ROWS)
        for scores in _score_rows(ordered, ends, start, highest)
    ]
    points = roc_points(np.concatenate(genuine), highest.sorted(), impostors, fars)
    return {
        "genuine_pairs": genuine_count,
        "impostor_pairs": impostors,
        "roc": [asdict(point) for point in points],
    }


def _check_counts(where: str, genuine: int, impostors: int, fars: Sequence[float]) -> None:
    if not genuine or not impostors:
        raise AllPairsError(
            f"{where}: there must be pairs of one person and pairs of two people, got {genuine} "
            f"of one person and {impostors} of two people; name the people of more images"
        )
    needed = max(highest_needed(fars, impostors), genuine)
    if needed > MAX_SCORES:
        raise AllPairsError(
            f"{where}: at most {MAX_SCORES} genuine scores and {MAX_SCORES} impostor scores can be "
            f"kept, got {genuine} genuine scores, and {highest_needed(fars, impostors)} impostor "
            f"scores for FAR {max(fars):g}; ask for lower rates with --fars, or use fewer images "
            "per person"
        )


def _score_rows(
    ordered: np.ndarray, ends: np.ndarray, start: int, highest: HighestScores
) -> list[np.ndarray]:
    """Score the block of rows that begins at row `start`; return the genuine scores.

    Each row of the block is paired with all rows after it.  The impostor scores are added to
    `highest`.
    """
    stop = min(start + BLOCK_ROWS, len(ends))
    genuine: list[np.ndarray] = []
    later = ArrayRows(ordered[start:], "embeddings")
    for offset, scores in score_blocks(ordered[start:stop], later):
        first = start + offset  # row of `ordered` that the first column of `scores` stands for
        if first < ends[stop - 1]:
            for row in range(start, stop):
                mates = scores[row - start, max(0, row + 1 - first) : max(0, ends[row] - first)]
                genuine.append(mates.copy())
                scores[row - start, : max(0, ends[row] - first)] = -np.inf
        highest.add(scores)
    return genuine
