# SPDX-License-Identifier: Apache-2.0
"""Record of the classes of a training set, with which a later run finds the same classes again.

Checkpoints store the record as JSON: ``num_classes``; ``sets``, one fingerprint per record set; and
``runs``, which are series of classes, as rows [first class, set index, first label, count].  A row
says that ``count`` consecutive classes have consecutive labels in the set with that index.  The
index is SHARED (-1) if a label means the same person in every set.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.records.classes import SHARED
from pipeline.records.record_set import RecordSet, row_slices

_MAX_SAMPLED_OFFSETS = 1 << 16


def fingerprint(labels: np.ndarray, offsets: np.ndarray) -> str:
    """Return a text that identifies a record set by its labels and the offsets of its records.

    Sets with equal numbers of images per person have equal labels.  The offsets distinguish such
    sets, because the lengths of their JPEG files differ.

    Parameters
    ----------
    labels
        Label of each image in the set, (N,).
    offsets
        Offset of each record in the .rec in bytes, (N,).  At most 65,536 offsets are read.
    """
    crc = 0
    for part in row_slices(len(labels)):
        crc = zlib.crc32(labels[part].astype(np.int32).data, crc)
    sampled = offsets[:: -(-len(offsets) // _MAX_SAMPLED_OFFSETS)].astype(np.int64)
    digest = hashlib.sha256(np.array([len(labels), crc], dtype=np.int64).tobytes())
    digest.update(sampled.tobytes())
    return digest.hexdigest()[:32]


def describe_classes(records: RecordSet) -> dict[str, Any]:
    """Return the record of the classes of a training set, as JSON types."""
    count = records.num_classes
    if records.origins is None:
        runs = [[0, 0 if len(records.files) == 1 else SHARED, 0, count]]
    else:
        index, label = records.origins.T
        breaks = (np.diff(index) != 0) | (np.diff(label) != 1)
        first = np.concatenate([[0], np.flatnonzero(breaks) + 1])
        counts = np.diff(first, append=count)
        runs = np.stack([first, index[first], label[first], counts], axis=1).tolist()
    return {"num_classes": count, "sets": list(records.fingerprints), "runs": runs}


def match_classes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Find the classes that two records have in common.

    Parameters
    ----------
    old, new
        Records of classes, as `describe_classes` returns them.

    Outputs
    -------
    Class numbers in ``new``, ascending, and the numbers of the same classes in ``old``; int64 (M,)
    each, for M common classes.
    """
    (old_sets, old_labels), (new_sets, new_labels) = _expand(old), _expand(new)
    found = np.full(len(new_labels), -1)
    for name in dict.fromkeys(new["sets"]):
        here = _members(new, new_sets, name)
        there = _members(old, old_sets, name)
        _, i, j = np.intersect1d(new_labels[here], old_labels[there], return_indices=True)
        classes, sources = here[i], there[j]
        free = found[classes] < 0
        found[classes[free]] = sources[free]
    matched = np.flatnonzero(found >= 0)
    return matched, found[matched]


def _expand(record: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays, int64 (C,): the set index of each class, and the label of each class."""
    count = int(record["num_classes"])
    sets, labels = np.full(count, SHARED - 1), np.zeros(count, dtype=np.int64)
    for first, index, label, length in record["runs"]:
        part = slice(first, min(first + length, count))
        sets[part], labels[part] = index, np.arange(label, label + part.stop - part.start)
    return sets, labels


def _members(record: Mapping[str, Any], sets: np.ndarray, name: str) -> np.ndarray:
    """Return the classes that have a label in a set with the fingerprint ``name``."""
    indices = [index for index, each in enumerate(record["sets"]) if each == name]
    return np.flatnonzero(np.isin(sets, [*indices, SHARED] if indices else []))
