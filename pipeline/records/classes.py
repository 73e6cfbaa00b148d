# SPDX-License-Identifier: Apache-2.0
"""Number the classes: join the labels of record sets, and drop people with too few images.

The array ``origins``, int64 (C, 2), has one row for each of the C classes.  A row holds the index
of the class's set in the list of sets (SHARED if the sets share their labels), and the label of the
class in that set.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHARED = -1
# If a set has more classes per image than this, an array with one entry per class wastes memory.
_MAX_CLASSES_PER_IMAGE = 16


def make_origins(set_index: int, labels: np.ndarray) -> np.ndarray:
    """Return the origins, int64 (C, 2), of C classes that all come from one set.

    ``labels``, (C,), are the labels of the classes in that set.
    """
    return np.stack([np.full(len(labels), set_index), labels], axis=1)


def stack(
    labels: Sequence[np.ndarray], num_classes: Sequence[int]
) -> tuple[np.ndarray, int, np.ndarray]:
    """Join the labels of record sets that hold different people; the sets share no class.

    The first class of a set follows the last class of the set before it.

    Outputs
    -------
    Labels of all N images, int32 (N,); number of classes C; origins of the classes, int64 (C, 2).
    """
    firsts = np.concatenate([[0], np.cumsum(num_classes)])
    stacked = [part + first for part, first in zip(labels, firsts[:-1].tolist(), strict=True)]
    origins = [make_origins(index, np.arange(count)) for index, count in enumerate(num_classes)]
    return np.concatenate(stacked).astype(np.int32), int(firsts[-1]), np.concatenate(origins)


def renumber(
    labels: np.ndarray, num_classes: int, images_filter: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drop people with fewer than ``images_filter`` images; renumber the other people 0, 1, 2, ...

    InsightFace's ``data_images_filter`` does not renumber, so its class matrix has a row for every
    dropped person.

    Outputs
    -------
    Rows of the M remaining images, int64 (M,); new labels of these images, int32 (M,); old labels
    of the K remaining people, int64 (K,), indexed by new label.  The new labels have the order of
    the old labels.
    """
    if num_classes > _MAX_CLASSES_PER_IMAGE * len(labels):
        present, dense = np.unique(labels, return_inverse=True)
        rows, new, kept = renumber(dense, len(present), images_filter)
        return rows, new, present[kept].astype(np.int64)
    kept = np.flatnonzero(np.bincount(labels, minlength=num_classes) >= images_filter)
    new = np.full(num_classes, -1, dtype=np.int32)
    new[kept] = np.arange(len(kept), dtype=np.int32)
    rows = np.flatnonzero(new[labels] >= 0)
    return rows, new[labels[rows]], kept


def count_present(labels: np.ndarray) -> int:
    """Return the number of different labels in an array; no label may be below 0."""
    if int(labels.max()) > _MAX_CLASSES_PER_IMAGE * len(labels):
        return len(np.unique(labels))
    present = np.zeros(int(labels.max()) + 1, dtype=bool)  # np.bincount needs 8 times the memory
    present[labels] = True
    return int(np.count_nonzero(present))
