# SPDX-License-Identifier: Apache-2.0
"""YouTube Faces: verification of pairs of videos in ten folds.

The embedding of a video is the mean of the embeddings of its frames, each scaled to length 1.  The
accuracy of a fold is measured at the threshold that is best on the other folds.

Wolf, Hassner and Maoz, "Face Recognition in Unconstrained Videos with Matched Background
Similarity", CVPR 2011.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.roc import HIGH_FARS, roc_points
from evaluation.text_lists import ListError, bad_line, parse_integer, read_lines
from evaluation.verification import cosine_threshold, fold_accuracies

SPLIT_COLUMN, FIRST_COLUMN, SECOND_COLUMN = 0, 2, 3
MIN_COLUMNS = 5


@dataclass(frozen=True)
class VideoPairs:
    """P pairs of videos, ordered by fold.

    Parameters
    ----------
    videos
        Names person/number of the V videos in the pairs.
    first, second
        Positions in `videos`, (P,) int64.
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

    The first line has headings.  The other lines have fields separated by commas: number of the
    fold, number of the pair, first video, second video, and 0 or 1 for "same person" in the last
    field.

    Raises
    ------
    ListError
        If the file cannot be read, a line is malformed, or the folds differ in their numbers of
        pairs.
    """
    videos: dict[str, int] = {}
    rows: list[tuple[int, int, int, int]] = []
    for count, (number, line) in enumerate(read_lines(path)):
        if not count:
            continue
        fields = [field.strip() for field in line.rstrip(",").split(",")]
        if len(fields) < MIN_COLUMNS:
            raise bad_line(
                path,
                number,
                f"must have at least {MIN_COLUMNS} fields separated by commas, got {len(fields)}",
                "correct the line",
            )
        fold = parse_integer(path, number, fields[SPLIT_COLUMN], "the split")
        if fields[-1] not in ("0", "1"):
            raise bad_line(
                path,
                number,
                f"the last field must be 0 or 1, got {fields[-1][:40]!r}",
                "correct the line",
            )
        pair = []
        for name in (fields[FIRST_COLUMN], fields[SECOND_COLUMN]):
            if name.count("/") != 1 or name.startswith((".", "/")) or name.endswith(("/", "..")):
                raise bad_line(
                    path,
                    number,
                    f"a video must be named person/number, got {name[:60]!r}",
                    "correct the line",
                )
            pair.append(videos.setdefault(name, len(videos)))
        rows.append((fold, pair[0], pair[1], int(fields[-1])))
    if not rows:
        raise ListError(f"{os.fspath(path)}: must list pairs of videos, got none; fill the list")
    table = np.array(sorted(rows, key=lambda row: row[0]), np.int64)
    sizes = np.unique(table[:, 0], return_counts=True)[1]
    if len(sizes) < 2 or len(set(sizes)) != 1:
        raise ListError(
            f"{os.fspath(path)}: must have at least 2 folds with the same number of pairs, got "
            f"folds of {', '.join(map(str, sizes[:20]))} pairs; use the list of the authors"
        )
    return VideoPairs(list(videos), table[:, 1], table[:, 2], table[:, 3] == 1, len(sizes))


def evaluate_video_pairs(pairs: VideoPairs, templates: np.ndarray) -> dict[str, Any]:
    """Compute the accuracy over the folds, and the ROC over all pairs.

    Inputs
    ------
    templates (V, E) float32 of length 1, one for each of ``pairs.videos``.

    Outputs
    -------
    ``pairs``, ``videos``, ``folds``; ``accuracy`` and ``accuracy_std``, mean and standard deviation
    over the folds; ``threshold``, the mean of their thresholds as a cosine; ``roc``, a list of the
    fields of `evaluation.roc.RocPoint`.
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
