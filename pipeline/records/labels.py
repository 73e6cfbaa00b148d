# SPDX-License-Identifier: Apache-2.0
"""Find the image records of a .rec and their labels.

The labels come from the identity records (``pipeline.records.open`` describes them) or, if these
are missing or damaged, from a scan of all record headers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.records.mapped import RecordError
from pipeline.records.recordio import MAGIC, Headers, RecordFile, check_magic, empty_record_error

_MAX_KEY = 1 << 24  # header and identity records store keys as float32, exact up to this number
_MAX_LABEL = (1 << 31) - 2  # labels and the number of classes must fit into int32
_HEADER_BYTES = 32  # size of the part of a record before its vector of labels


@dataclass(frozen=True)
class HeaderRecord:
    """Key ranges in the header record of a .rec, and the .idx rows whose keys lie in each range."""

    first_identity: int  # key of the first identity record; all images have smaller keys
    end: int  # key after the last identity record
    image_rows: np.ndarray
    identity_rows: np.ndarray
    extra_rows: np.ndarray  # rows of the .idx whose keys are ``end`` or larger

    def notices(self, keys: np.ndarray) -> list[str]:
        """Return log sentences about records that only the header record or only the .idx lists."""
        found = []
        for what, named, rows in (
            ("image", self.first_identity - 1, self.image_rows),
            ("identity record", self.end - self.first_identity, self.identity_rows),
        ):
            missing = named - len(rows)
            if missing > 0:
                verb = "is" if missing == 1 else "are"
                found.append(
                    f"{missing} of the {named} {what}s that the header lists {verb} not in the .idx"
                )
                # One sentence is enough: an .idx that lacks images may lack the identity records,
                # which follow the images, for the same reason.
                break
        if len(self.extra_rows):
            found.append(
                f"{len(self.extra_rows)} records of the .idx are not listed in the header, the "
                f"first with key {keys[self.extra_rows[0]]}; the loader does not read them"
            )
        return found


def read_header_record(file: RecordFile) -> HeaderRecord | None:
    """Read the header record; return None if it is missing or inconsistent."""
    keys = file.keys
    if keys[0] != 0:
        return None
    header = file.headers(slice(1))
    if header.flag[0] < 2 or header.body[0] > 0:
        return None
    first, end = header.label[0], header.second[0]
    if not (_are_keys(header.label) and _are_keys(header.second) and 1 < first <= end):
        return None
    identity_rows = np.flatnonzero((keys >= first) & (keys < end))
    if (file.headers(identity_rows).body > 0).any():
        return None  # some records in the key range of identity records hold images
    image_rows = np.flatnonzero((keys > 0) & (keys < first))
    return HeaderRecord(
        int(first), int(end), image_rows, identity_rows, np.flatnonzero(keys >= end)
    )


def labels_from_identities(file: RecordFile, header: HeaderRecord) -> np.ndarray | None:
    """Return the label of each image, or None if the identity records are inconsistent.

    An identity record states which images show one person.  All of them get the label in the record
    of the first one.  Raises RecordError if an image record holds no image.
    """
    images, people = header.image_rows, header.identity_rows
    if not len(images) or len(people) != header.end - header.first_identity:
        return None
    identity = file.headers(people)
    if not (_are_keys(identity.label) and _are_keys(identity.second)):
        return None
    ranges = np.stack([identity.label, identity.second]).astype(np.int64)
    ranges = ranges[:, ranges[1] > ranges[0]]
    first, stop = ranges[:, np.argsort(ranges[0])]
    # The key ranges of the identity records must cover the keys of the images without gaps.  Below,
    # the first and the last image of each range must have the same label.
    if (
        not len(first)
        or (first[1:] != stop[:-1]).any()
        or (first[0], stop[-1]) != (file.keys[images[0]], file.keys[images[-1]] + 1)
        or len(images) != stop[-1] - first[0]
    ):
        return None
    head = file.headers(images[first - first[0]])
    tail = file.headers(images[stop - 1 - first[0]])
    if (head.magic != MAGIC).any() or (head.label != tail.label).any():
        return None
    _check_short_records(file, images)
    return np.repeat(head.label, stop - first)


def labels_from_scan(
    file: RecordFile, header: HeaderRecord | None
) -> tuple[np.ndarray, np.ndarray]:
    """Read all record headers; return the rows of the images and the labels of these images.

    Raises RecordError if an image record holds no image, or no record starts at an .idx offset.
    """
    headers = file.headers()
    check_magic(file, np.arange(len(file.keys)), headers)
    rows = header.image_rows if header else find_image_rows(file.keys, headers)
    _check_bodies(file.rec, file.keys[rows], headers, rows)
    return rows, headers.label[rows]


def count_classes(labels: np.ndarray) -> int:
    """Return the largest label plus 1, at least 1; ignore negative, infinite and NaN labels."""
    sound = labels[(labels >= 0) & (labels < np.inf)]
    return min(int(sound.max()), _MAX_LABEL) + 1 if len(sound) else 1


def check_labels(rec: Path, keys: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    """Raise RecordError if a label is not a whole number in 0..num_classes-1.

    ``keys`` and ``labels`` have shape (N,), with one entry per image.
    """
    end = min(num_classes, _MAX_LABEL + 1)
    if labels.dtype.kind == "i" and labels.min() >= 0 and labels.max() < end:
        return  # int32 labels, made by ``narrow``, are whole numbers
    inside = (labels >= 0) & (labels < end)  # False for NaN
    bad = int(np.flatnonzero(~inside | (labels != np.floor(labels)))[0])
    label, valid = str(np.float32(labels[bad])).removesuffix(".0"), f"0..{num_classes - 1}"
    if inside[bad]:
        raise RecordError(
            f"{rec}: the label in the record of key {keys[bad]} is not a whole number, got "
            f"{label}; labels must be whole numbers in {valid}"
        )
    raise RecordError(
        f"{rec}: label {label} in the record of key {keys[bad]} is out of range, "
        f"got num_classes={num_classes}; labels must be whole numbers in {valid}"
    )


def find_image_rows(keys: np.ndarray, headers: Headers) -> np.ndarray:
    """Return the rows of the image records: all but a header record and the identity records.

    Return an empty array if no record holds an image.
    """
    filled = np.flatnonzero(headers.body > 0)
    if not len(filled):
        return filled
    end = int(filled[-1]) + 1
    first, stop = headers.label[end:], headers.second[end:]
    is_bare = (headers.body <= 0) & (headers.flag >= 2)
    # Flag 2 does not prove an identity record, because an image record with two labels has it too.
    # So test the labels of the records: if they are identity records, the two labels are a range of
    # keys, and the largest end of all ranges is at least the key of the last image.  Identity
    # records store keys as float32, so round that key to float32 before the comparison.
    are_ranges = bool(
        len(first) and (first <= stop).all() and stop.max() >= np.float32(keys[end - 1])
    )
    begin, after = headers.label[0], headers.second[0]
    is_label = np.isfinite(begin) and np.isfinite(after) and (begin <= 1 or begin > after)
    has_header = bool(keys[0] == 0 and is_bare[0] and (are_ranges or not is_label))
    if not (is_bare[end:].all() and (has_header or are_ranges)):
        end = len(keys)
    return np.arange(int(has_header), end)


def _check_short_records(file: RecordFile, images: np.ndarray) -> None:
    """Raise RecordError if an image record is too short to hold an image.

    The distance to the next offset serves as the length of a record, so that only the headers of
    short records are read.  An empty record before a gap in the .rec is not found here; the reader
    refuses that record later.
    """
    offsets, flag = file.offsets, int(file.headers(images[:1]).flag[0])
    order = None if (offsets[1:] > offsets[:-1]).all() else np.argsort(offsets)
    starts = offsets if order is None else offsets[order]
    max_bytes = _HEADER_BYTES + 4 * max(2, flag)
    short = np.flatnonzero(np.diff(starts, append=len(file.data)) <= max_bytes)
    rows = np.intersect1d(short if order is None else order[short], images)
    _check_bodies(file.rec, file.keys[rows], file.headers(rows), np.arange(len(rows)))


def _check_bodies(rec: Path, keys: np.ndarray, headers: Headers, rows: np.ndarray) -> None:
    """Raise RecordError if the record at one of ``rows`` holds no image.

    ``rows`` are indices into ``headers``, and ``keys`` are the keys of these rows.
    """
    empty = np.flatnonzero(headers.body[rows] <= 0)
    if len(empty):
        row = rows[empty[0]]
        length, flag = int(headers.length[row]), int(headers.flag[row])
        raise empty_record_error(rec, keys[empty[0]], length, flag)


def _are_keys(numbers: np.ndarray) -> bool:
    """Return True if all numbers are valid keys: whole, at least 0, and exact in float32."""
    return bool(((numbers >= 0) & (numbers <= _MAX_KEY) & (numbers == np.floor(numbers))).all())
