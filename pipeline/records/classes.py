# SPDX-License-Identifier: Apache-2.0
"""Which class is which person: labels of several sets as one, and people with too few images.

Pure arithmetic on labels.  ``origins`` (C, 2) int64 says of each class which set (its place in the
list, SHARED for all) and which label there it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHARED = -1
_MANY_PER_IMAGE = 16  # classes


def origins_of(place: int, labels: np.ndarray) -> np.ndarray:
    """Return the origins of classes that are labels (C,) of one set, int64 (C, 2)."""
    return np.stack([np.full(len(labels), place), labels], axis=1)


def stack(
    labels: Sequence[np.ndarray], num_classes: Sequence[int]
) -> tuple[np.ndarray, int, np.ndarray]:
    """Return labels, number of classes and origins of sets that hold different people.

    The classes of a set begin where those of the one before end.
    """
    begins = np.concatenate([[0], np.cumsum(num_classes)])
    stacked = [part + begin for part, begin in zip(labels, begins[:-1].tolist(), strict=True)]
    origins = [origins_of(place, np.arange(count)) for place, count in enumerate(num_classes)]
    return np.concatenate(stacked).astype(np.int32), int(begins[-1]), np.concatenate(origins)


def share(
    labels: Sequence[np.ndarray], num_classes: Sequence[int]
) -> tuple[np.ndarray, int, np.ndarray | None]:
    """Return labels and number of classes of sets in which a label is the same person."""
    return np.concatenate(labels), max(num_classes), None


def renumber(
    labels: np.ndarray, num_classes: int, images_filter: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leave people with fewer than ``images_filter`` images out and number the others densely.

    InsightFace's option of this name (``data_images_filter``) leaves the labels as they were, so
    the class matrix keeps a row for everyone left out.

    Outputs
    -------
    The rows that stay, int64 (M,); their new labels, in the order of the old ones, int32 (M,); and
    the old label of each new one, int64 (K,).
    """
    if num_classes > _MANY_PER_IMAGE * len(labels):  # no arrays of so many classes
        present, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
        rows, new, kept = renumber(places, len(present), images_filter)
        return rows, new, present[kept].astype(np.int64)
    counts = np.bincount(labels, minlength=num_classes)
    kept = np.flatnonzero(counts >= images_filter)
    new = np.full(num_classes, -1, dtype=np.int32)
    new[kept] = np.arange(len(kept), dtype=np.int32)
    rows = np.flatnonzero(new[labels] >= 0)
    return rows, new[labels[rows]], kept


def count_present(labels: np.ndarray) -> int:
    """Return how many different labels from 0 on there are."""
    if int(labels.max()) > _MANY_PER_IMAGE * len(labels):
        return len(np.unique(labels))
    present = np.zeros(int(labels.max()) + 1, dtype=bool)
    present[labels] = True
    return int(np.count_nonzero(present))
