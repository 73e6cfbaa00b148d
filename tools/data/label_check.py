# SPDX-License-Identifier: Apache-2.0
"""Check the labels of a record set: range, identity records, and identities with only one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.records.labels import HeaderRecord, find_image_rows, read_header_record

if TYPE_CHECKING:
    from pipeline.records.recordio import Headers, RecordFile
    from tools.data.findings import Findings

_MAX_CLASSES = (1 << 31) - 1
_MAX_KEY = 1 << 24  # identity records store keys as float32, which is exact up to this number


@dataclass(frozen=True)
class Images:
    """Image records of a set, N of them, and the header record of the set."""

    rows: np.ndarray
    """Rows of the images in the index, int64 (N,)."""
    header: HeaderRecord | None


def find_images(file: RecordFile, headers: Headers) -> Images:
    """Return the image records of a set, including damaged ones without an image.

    ``headers`` are the headers of all records of ``file``.
    """
    header = read_header_record(file)
    if header is not None:
        return Images(header.image_rows, header)
    return Images(find_image_rows(file.keys, headers), None)


def check_labels(
    file: RecordFile, headers: Headers, images: Images, num_classes: int, findings: Findings
) -> None:
    """Check the labels of the images of a set.

    Parameters
    ----------
    headers
        Headers of all records of ``file``.
    num_classes
        Number of classes of the set; 0 if unknown.  Labels from 0 to 2**31 - 2 are then in range.
    """
    keys, labels = file.keys[images.rows], headers.label[images.rows]
    sound = _check_range(keys, labels, num_classes or _MAX_CLASSES, findings)
    people = np.where(sound, labels, -1).astype(np.int64)
    if images.header is not None:
        people = _check_identities(file, headers, images.header, people, findings)
    _check_single(keys, people, findings)


def _check_range(
    keys: np.ndarray, labels: np.ndarray, num_classes: int, findings: Findings
) -> np.ndarray:
    """Return whether each label is a whole number in 0..num_classes-1, bool (N,)."""
    sound = (labels >= 0) & (labels < num_classes) & (labels == np.floor(labels))  # False for NaN
    for row in np.flatnonzero(~sound).tolist():
        text = str(np.float32(labels[row])).removesuffix(".0")
        findings.add(
            "label_range",
            int(keys[row]),
            f"its label is {text}, not a whole number in 0..{num_classes - 1}",
        )
    return sound


def _check_identities(
    file: RecordFile,
    headers: Headers,
    header: HeaderRecord,
    people: np.ndarray,
    findings: Findings,
) -> np.ndarray:
    """Compare the labels of the images with the identity records.

    ``people`` are the labels of the N images, int64 (N,); -1 for a label that is out of range.
    Return the label of each image according to its identity record, int64 (N,).
    """
    keys = file.keys[header.image_rows]
    numbers, first, stop = _sound_ranges(file, headers, header, findings)
    if not len(first):
        return people
    place = np.searchsorted(first, keys, side="right") - 1
    covered = (place >= 0) & (keys < stop[place])
    for row in np.flatnonzero(~covered & (people >= 0)).tolist():
        findings.add("label", int(keys[row]), "no identity record contains its key")
    found, rows = people.copy(), np.flatnonzero(covered)
    changes = np.flatnonzero(np.diff(place[rows])) + 1
    seen: dict[int, int] = {}
    for members in np.split(rows, changes) if len(rows) else ():
        number = int(numbers[place[members[0]]])
        label = _usual_label(people[members], number)
        if label < 0:
            continue
        found[members] = label
        record_key = header.first_identity + number
        if label in seen:
            findings.add(
                "identity_record",
                record_key,
                f"its images have the label {label}, and so have the images of the identity record "
                f"of key {seen[label]}",
            )
        seen.setdefault(label, record_key)
        wrong = members[(people[members] != label) & (people[members] >= 0)]
        for row in wrong.tolist():
            findings.add(
                "label",
                int(keys[row]),
                f"its label is {people[row]}, but the identity record of key {record_key} lists it "
                f"with images of label {label}",
            )
    return found


def _sound_ranges(
    file: RecordFile, headers: Headers, header: HeaderRecord, findings: Findings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers, first keys and end keys of sound identity records, sorted by first key.

    The number of an identity record is its key minus the key of the first identity record.  Its end
    key is one more than the last key of its images.  Records without images are left out.  A record
    whose keys are not keys of images, and a record that shares keys with another one, become
    findings.
    """
    rows = header.identity_rows
    first, stop = headers.label[rows], headers.second[rows]
    with np.errstate(invalid="ignore"):
        are_keys = (first >= 1) & (first <= stop) & (stop <= min(header.first_identity, _MAX_KEY))
        are_keys &= (first == np.floor(first)) & (stop == np.floor(stop))
    numbers = file.keys[rows] - header.first_identity
    for row in np.flatnonzero(~are_keys).tolist():
        text = f"{first[row]:g} to {stop[row]:g}"
        findings.add(
            "identity_record",
            int(file.keys[rows[row]]),
            f"the keys that it lists are not keys of images: {text}",
        )
    chosen = np.flatnonzero(are_keys & (first < stop))
    chosen = chosen[np.argsort(first[chosen], kind="stable")]
    ends = np.maximum.accumulate(stop[chosen])
    shared = np.flatnonzero(first[chosen][1:] < ends[:-1]) + 1
    for row in chosen[shared].tolist():
        findings.add(
            "identity_record",
            int(file.keys[rows[row]]),
            f"it shares keys from {int(first[row])} on with another identity record",
        )
    chosen = np.delete(chosen, shared)
    return numbers[chosen], first[chosen].astype(np.int64), stop[chosen].astype(np.int64)


def _usual_label(labels: np.ndarray, number: int) -> int:
    """Return the most frequent label of the images of an identity record; -1 if none is in range.

    ``labels`` are the labels of the images, -1 for a label out of range.  ``number`` is the number
    of the identity record.

    If several labels are equally frequent, the result is the number of the identity record if that
    number is one of these labels, and the smallest of these labels if not.
    """
    if (labels == labels[0]).all():
        return int(labels[0])
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    usual = values[counts == counts.max()] if len(values) else values
    if number in usual:
        return number
    return int(usual[0]) if len(usual) else -1


def _check_single(keys: np.ndarray, people: np.ndarray, findings: Findings) -> None:
    """List the identities that have one image; entries of ``people`` below 0 do not count."""
    _, first, counts = np.unique(people, return_index=True, return_counts=True)
    for row in first[counts == 1].tolist():
        if people[row] >= 0:
            findings.add(
                "single", int(keys[row]), f"it is the only image of the identity {people[row]}"
            )
