# SPDX-License-Identifier: Apache-2.0
"""Which records of a .rec are images, and of whom: from the identity records or from a scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.records.mapped import RecordError
from pipeline.records.recordio import MAGIC, Headers, RecordFile, no_image

_EXACT = 1 << 24  # float32, in which header and identity records give keys, is exact up to here
_LARGEST_LABEL = (1 << 31) - 2  # int32, and the number of classes as well
_HEAD_BYTES = 32  # of a record before labels and image


@dataclass(frozen=True)
class HeaderRecord:
    """What the header record says, and the rows of the .idx that have these keys."""

    begin: int  # the first key of identity records; those of images are below
    end: int  # of their keys
    images: np.ndarray
    people: np.ndarray
    beyond: np.ndarray

    def notices(self, keys: np.ndarray) -> list[str]:
        """Return what the .idx has less, or more, than the header record says."""
        found = []
        named, listed, what = self.begin - 1, len(self.images), "image"
        if listed >= named:
            named, listed, what = self.end - self.begin, len(self.people), "identity record"
        if listed < named:
            verb = "is" if named - listed == 1 else "are"
            found.append(
                f"{named - listed} of the {named} {what}s that the header names {verb} not in the "
                ".idx"
            )
        if len(self.beyond):
            found.append(
                f"{len(self.beyond)} records from key {keys[self.beyond[0]]} on are not named by "
                "the header and are left out"
            )
        return found


def read_header_record(file: RecordFile) -> HeaderRecord | None:
    """Return what the header record says; None if there is none that can be relied on."""
    keys = file.keys
    if keys[0] != 0:
        return None
    header = file.headers(slice(1))
    if header.flag[0] < 2 or header.body[0] > 0:
        return None
    begin, end = header.label[0], header.second[0]
    if not (_are_keys(header.label) and _are_keys(header.second) and 1 < begin <= end):
        return None
    people = np.flatnonzero((keys >= begin) & (keys < end))
    if (file.headers(people).body > 0).any():
        return None  # they are images
    images, beyond = np.flatnonzero((keys > 0) & (keys < begin)), np.flatnonzero(keys >= end)
    return HeaderRecord(int(begin), int(end), images, people, beyond)


def labels_from_identities(file: RecordFile, header: HeaderRecord) -> np.ndarray | None:
    """Return the labels of the images from the identity records; None if these do not settle them.

    An image record without an image is refused.
    """
    images, people = header.images, header.people
    if not len(images) or len(people) != header.end - header.begin:
        return None
    identity = file.headers(people)
    if not (_are_keys(identity.label) and _are_keys(identity.second)):
        return None
    first, stop = identity.label.astype(np.int64), identity.second.astype(np.int64)
    some = np.flatnonzero(stop > first)
    first, stop = first[some], stop[some]
    order = np.argsort(first)
    first, stop = first[order], stop[order]
    # The ranges must tile the image keys, and both ends of each carry the same label.
    if not len(first) or (first[1:] != stop[:-1]).any():
        return None
    if first[0] != file.keys[images[0]] or stop[-1] != file.keys[images[-1]] + 1:
        return None
    if len(images) != stop[-1] - first[0]:
        return None
    head = file.headers(images[first - first[0]])
    tail = file.headers(images[stop - 1 - first[0]])
    if (head.magic != MAGIC).any() or (head.label != tail.label).any():
        return None
    _refuse_short(file, images)
    return np.repeat(head.label, stop - first)


def labels_from_scan(
    file: RecordFile, header: HeaderRecord | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows of images, their labels) from one pass over all records.

    An image record without an image, and an offset without a record, are refused.
    """
    headers = file.headers()
    wrong = np.flatnonzero(headers.magic != MAGIC)
    if len(wrong):
        raise RecordError(
            f"{file.rec}: no record starts at offset {file.offsets[wrong[0]]}, where key "
            f"{file.keys[wrong[0]]} should be; the .idx belongs to another .rec"
        )
    rows = header.images if header else _without_bare_ends(file.keys, headers)
    _refuse_empty(file.rec, file.keys[rows], headers, rows)
    return rows, headers.label[rows]


def classes_of(labels: np.ndarray) -> int:
    """Return the number of people that labels tell, also where some are no labels."""
    sound = labels[(labels >= 0) & (labels < np.inf)]
    return min(int(sound.max()), _LARGEST_LABEL) + 1 if len(sound) else 1


def check_labels(rec: Path, keys: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    """Refuse labels (N,) that are not whole numbers below ``num_classes``, naming the first."""
    end = min(num_classes, _LARGEST_LABEL + 1)
    if labels.dtype.kind == "i" and labels.min() >= 0 and labels.max() < end:
        return  # they are int32 if all of them could be narrowed
    inside = (labels >= 0) & (labels < end)  # so that NaN is found as well
    bad = int(np.flatnonzero(~inside | (labels != np.floor(labels)))[0])
    label, right = str(np.float32(labels[bad])).removesuffix(".0"), f"0..{num_classes - 1}"
    if inside[bad]:
        raise RecordError(
            f"{rec}: the label in the record of key {keys[bad]} is no whole number, got {label}; "
            f"labels must be {right}"
        )
    raise RecordError(
        f"{rec}: label {label} in the record of key {keys[bad]} is out of range, "
        f"got num_classes={num_classes}; labels must be {right}"
    )


def _without_bare_ends(keys: np.ndarray, headers: Headers) -> np.ndarray:
    """Return the rows without a header record at the start and identity records at the end.

    All rows if none holds an image.
    """
    filled = np.flatnonzero(headers.body > 0)
    if not len(filled):
        return filled
    end = int(filled[-1]) + 1
    first, stop = headers.label[end:], headers.second[end:]
    bare = (headers.body <= 0) & (headers.flag >= 2)
    # An image record with two labels has such a flag as well.  Identity records give ranges of keys
    # up to that of the last image, which float32 may have rounded.
    ranges = bool(len(first) and (first <= stop).all() and stop.max() >= np.float32(keys[end - 1]))
    begin, after = headers.label[0], headers.second[0]
    label = np.isfinite(begin) and np.isfinite(after) and (begin <= 1 or begin > after)
    has_header = bool(keys[0] == 0 and bare[0] and (ranges or not label))
    if not (bare[end:].all() and (has_header or ranges)):
        end = len(keys)
    return np.arange(int(has_header), end)


def _refuse_short(file: RecordFile, images: np.ndarray) -> None:
    """Refuse an image record without an image, as far as it shows without reading all records.

    The next record begins right behind its labels.  The reader finds what is not seen here.
    """
    offsets, flag = file.offsets, int(file.headers(images[:1]).flag[0])
    order = None if (offsets[1:] > offsets[:-1]).all() else np.argsort(offsets)
    begins = offsets if order is None else offsets[order]
    short = np.flatnonzero(np.diff(begins, append=len(file.data)) <= _HEAD_BYTES + 4 * max(2, flag))
    rows = np.intersect1d(short if order is None else order[short], images)
    _refuse_empty(file.rec, file.keys[rows], file.headers(rows), np.arange(len(rows)))


def _refuse_empty(rec: Path, keys: np.ndarray, headers: Headers, rows: np.ndarray) -> None:
    """Refuse the first image record without an image among rows of headers, of these keys."""
    empty = np.flatnonzero(headers.body[rows] <= 0)
    if len(empty):
        row = rows[empty[0]]
        raise no_image(rec, keys[empty[0]], int(headers.length[row]), int(headers.flag[row]))


def _are_keys(numbers: np.ndarray) -> bool:
    """Return whether floats are whole numbers that float32 holds exactly."""
    return bool(((numbers >= 0) & (numbers <= _EXACT) & (numbers == np.floor(numbers))).all())
