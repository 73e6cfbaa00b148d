# SPDX-License-Identifier: Apache-2.0
"""YouTube Faces: verification of pairs of videos in ten folds.

The embedding of each frame is scaled to length 1.  The embedding of a video is the mean over its
frames, also scaled to length 1.  The accuracy of a fold is measured at the threshold that is best
on the other folds.

Wolf, Hassner and Maoz, "Face Recognition in Unconstrained Videos with Matched Background
Similarity", CVPR 2011.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from evaluation.roc import HIGH_FARS, roc_points
from evaluation.text_lists import ListError, bad_line, read_lines
from evaluation.verification import cosine_threshold, fold_accuracies

SPLIT_FORM = "split, [pair,] person/number, person/number, 0 or 1"
_ANSWERS = {"0": False, "1": True}


class VideoPair(NamedTuple):
    """Pair of videos that one line of ``splits.txt`` lists."""

    fold: int
    first: str
    """Name of the first video, of the form person/number."""
    second: str
    same: bool


def parse_split(fields: Sequence[str]) -> VideoPair | None:
    """Return the pair of a line of ``splits.txt``, or None if the line has another form.

    Parameters
    ----------
    fields
        Stripped fields of the line: number of the fold, number of the pair (some copies of the list
        omit it), first video, second video, and as the last field 1 for one person or 0 for two
        people.  Some copies have more fields before the last one.
    """
    if len(fields) < 4 or fields[-1] not in _ANSWERS:
        return None
    fold, (first, second) = fields[0], fields[1:3] if len(fields) == 4 else fields[2:4]
    if not (fold.isascii() and fold.isdecimal() and len(fold) <= 9):
        return None
    for name in (first, second):
        parts = name.split("/")
        if len(parts) != 2 or not all(parts) or not {".", ".."}.isdisjoint(parts):
            return None
    return VideoPair(int(fold), first, second, _ANSWERS[fields[-1]])


@dataclass(frozen=True)
class VideoPairs:
    """P pairs of videos, ordered by fold.

    Parameters
    ----------
    videos
        Names of the V videos in the pairs, of the form person/number.
    first, second
        Positions in `videos` of the two videos of each pair, (P,) int64 each.
    same
        True for a pair of one person, (P,) bool.
    folds
        Number of folds; each has P / folds pairs.
    """

    videos: list[str]
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    folds: int


def read_splits(path: str | os.PathLike[str]) -> VideoPairs:
    """Read ``splits.txt`` or ``splits_corrected.txt``.

    `parse_split` describes the form of a line.  The first line may have headings.

    Raises
    ------
    ListError
        If the file cannot be read, a line is malformed, or the folds differ in their numbers of
        pairs.
    """
    videos: dict[str, int] = {}
    rows: list[tuple[int, int, int, bool]] = []
    for count, (number, line) in enumerate(read_lines(path)):
        pair = parse_split([field.strip() for field in line.rstrip(", ").split(",")])
        if pair is not None:
            one, two = (videos.setdefault(v, len(videos)) for v in (pair.first, pair.second))
            rows.append((pair.fold, one, two, pair.same))
        elif count:
            raise bad_line(
                path, number, f'must be "{SPLIT_FORM}", got {line[:80]!r}', "correct the line"
            )
    if not rows:
        raise ListError(f"{os.fspath(path)}: must list pairs of videos, got none; fill the list")
    table = np.array(sorted(rows, key=lambda row: row[0]), np.int64)
    sizes = np.unique(table[:, 0], return_counts=True)[1]
    if len(sizes) < 2 or len(set(sizes)) != 1:
        raise ListError(
            f"{os.fspath(path)}: must have at least 2 folds with the same number of pairs, got "
            f"folds of {', '.join(map(str, sizes[:20]))} pairs; use the list of the dataset"
        )
    return VideoPairs(list(videos), table[:, 1], table[:, 2], table[:, 3] == 1, len(sizes))


def evaluate_video_pairs(pairs: VideoPairs, templates: np.ndarray) -> dict[str, Any]:
    """Compute the accuracy over the folds, and the ROC over all pairs.

    Inputs
    ------
    templates (V, E) float32 of unit length, one for each of ``pairs.videos``.

    Outputs
    -------
    The numbers of ``pairs``, ``videos`` and ``folds``; ``accuracy`` and ``accuracy_std``, mean and
    standard deviation over the folds; ``threshold``, the mean threshold of the folds as a cosine;
    ``roc``, a list of dicts with the fields of `evaluation.roc.RocPoint`.
    """
    scores = np.einsum(
        "ij,ij->i", templates[pairs.first], templates[pairs.second], dtype=np.float64
    )
    accuracies, thresholds = fold_accuracies(2 - 2 * scores, pairs.same, pairs.folds)
    impostors = np.sort(scores[~pairs.same])[::-1]
    points = roc_points(scores[pairs.same], impostors, len(impostors), HIGH_FARS)
    return {
        "pairs": len(scores),
        "videos": len(pairs.videos),
        "folds": pairs.folds,
        "accuracy": float(accuracies.mean()),
        "accuracy_std": float(accuracies.std()),
        "threshold": cosine_threshold(float(thresholds.mean())),
        "roc": [asdict(point) for point in points],
    }
