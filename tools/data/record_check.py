# SPDX-License-Identifier: Apache-2.0
"""Check a record set: its index, records, labels, property file and images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import ops
from image_headers import stored_size
from pipeline.records import mapped
from pipeline.records.labels import count_classes
from pipeline.records.mapped import RecordError
from pipeline.records.property_file import Property, read_property
from pipeline.records.reader import RecordReader
from pipeline.records.record_set import ImageError, RecordSet
from pipeline.records.recordio import (
    WHOLE,
    Headers,
    RecordFile,
    count_bytes_after,
    find_files,
    map_rec,
    read_headers,
)
from tools.data.decode_check import MAX_PIXELS
from tools.data.findings import KINDS, Findings
from tools.data.image_check import check_images
from tools.data.index_lines import find_records, read_sound_lines
from tools.data.label_check import check_labels, find_images

_SAMPLE_IMAGES = 64
_MIN_UNLISTED_BYTES = 32


@dataclass(frozen=True)
class CheckedSet:
    """Result of the check of a record set."""

    rec: Path
    idx: Path
    findings: Findings
    notices: list[str]
    """Facts that are no faults, such as bytes that the index does not list."""
    images: int
    """Number of image records."""
    image_size: tuple[int, int]
    """(height, width) in pixels that the images must have."""
    num_classes: int
    """Number of classes that the set states; 0 if the set states none."""
    keys: np.ndarray
    """Keys of the clean index, an .idx without the faulty records, int64 (n,), sorted."""
    offsets: np.ndarray
    """Offsets of the clean index, int64 (n,)."""
    clean_images: int
    """Number of images in the clean index."""


def check_set(
    path: Path,
    *,
    threads: int,
    near_duplicates: bool = False,
    leave_out: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CheckedSet:
    """Check a record set and decode all of its images; return the findings and a clean index.

    Parameters
    ----------
    path
        A folder with train.rec, or with one .rec of another name; or a .rec.
    threads
        Number of decoder threads.
    near_duplicates
        Whether to look for images that look the same.
    leave_out
        Kinds of findings whose records the clean index leaves out as well, in addition to the kinds
        that it always leaves out (``is_left_out`` in KINDS).
    progress
        Function that is called with the numbers of decoded images and of all images.

    Raises
    ------
    RecordError
        If the set cannot be read, holds no image, or holds images of too many pixels.
    """
    mapped.guard_with(ops.guard())
    findings = Findings()
    file = _open(path, findings)
    headers = read_headers(file.data, file.offsets)
    images = find_images(file, headers)
    if not len(images.rows):
        raise RecordError(
            f"{file.rec}: holds no image, got {len(file.keys)} records without image; use another "
            "record set"
        )
    stated = _read_property(file.rec.with_name("property"), findings)
    people = images.header.end - images.header.first_identity if images.header else 0
    num_classes = stated.num_classes or people
    if people and num_classes != people:
        text = f"it states {num_classes} classes, but the header record lists {people} identities"
        findings.add("property", None, text)
    notices = images.header.notices(file.keys) if images.header else []
    notices += _unlisted_bytes(file)
    records = RecordSet(
        files=(file.rec,),
        file=np.zeros(len(images.rows), np.int16),
        keys=file.keys[images.rows],
        offsets=file.offsets[images.rows],
        labels=headers.label[images.rows],
        num_classes=num_classes or count_classes(headers.label[images.rows]),
        image_size=(0, 0),
    )
    size = _image_size(records, stated, findings)
    check_labels(file, headers, images, num_classes, findings)
    check_images(
        replace(records, image_size=size),
        threads=threads,
        near_duplicates=near_duplicates,
        findings=findings,
        progress=progress,
    )
    _check_extents(file, headers, findings)
    dropped = {name for name, kind in KINDS.items() if kind.is_left_out} - {"index"}
    stays = ~np.isin(file.keys, findings.keys(dropped | set(leave_out)))
    return CheckedSet(
        rec=file.rec,
        idx=file.idx,
        findings=findings,
        notices=notices,
        images=len(records),
        image_size=size,
        num_classes=num_classes,
        keys=file.keys[stays],
        offsets=file.offsets[stays],
        clean_images=int(np.count_nonzero(stays[images.rows])),
    )


def _open(path: Path, findings: Findings) -> RecordFile:
    """Open a set with the sound lines of its index; the other lines become findings."""
    rec, idx = find_files(path)
    data = map_rec(rec)
    keys, offsets = read_sound_lines(idx, findings)
    rows = find_records(data, keys, offsets, findings)
    if not len(rows):
        raise RecordError(
            f"{idx}: no line names a record of {rec.name}, got {len(keys)} lines of another .rec; "
            f"use the .idx of {rec.name}"
        )
    return RecordFile(rec, idx, data, keys[rows], offsets[rows])


def _read_property(path: Path, findings: Findings) -> Property:
    """Read the property file; a damaged file becomes a finding and counts as missing."""
    try:
        return read_property(path)
    except RecordError as error:
        findings.add("property", None, str(error).partition(": ")[2])
        return Property()


def _unlisted_bytes(file: RecordFile) -> list[str]:
    """Return a notice if bytes of the .rec follow the last record of the index."""
    last = int(np.argmax(file.offsets))
    after = count_bytes_after(file.data, int(file.offsets[last]))
    if after < _MIN_UNLISTED_BYTES:
        return []
    return [f"{after} bytes follow the record of key {file.keys[last]}, the last one in the .idx"]


def _check_extents(file: RecordFile, headers: Headers, findings: Findings) -> None:
    """List as damaged the records that end after the next record starts, or after the .rec ends.

    Records of several frames, and records that are already listed as damaged, are passed over.
    """
    order = np.argsort(file.offsets, kind="stable")
    starts = file.offsets[order]
    ends = starts + 8 + headers.length[order]
    limits = np.append(starts[1:], len(file.data))
    is_new = ~np.isin(file.keys[order], findings.keys(["damaged"]))
    is_long = (ends > limits) & (headers.cflag[order] == WHOLE)
    for place in np.flatnonzero(is_long & is_new).tolist():
        what = "the end of the .rec"
        if place + 1 < len(order):
            what = f"the start of the record of key {file.keys[order[place + 1]]}"
        text = f"its record ends {ends[place] - limits[place]} bytes after {what}"
        findings.add("damaged", int(file.keys[order[place]]), text)


def _image_size(records: RecordSet, stated: Property, findings: Findings) -> tuple[int, int]:
    """Return the (height, width) that the images of a set must have.

    If the property file states no size, the result is the most frequent size of 64 sampled images.
    If it states a size, the result is that size, with one exception: if more than half of the
    sampled images have one other size, the result is their size, and the property file becomes a
    finding.  A size with exchanged height and width does not count as another size here.
    """
    reader = RecordReader(records)
    sizes: Counter[tuple[int, int]] = Counter()
    rows = np.unique(np.linspace(0, len(records) - 1, _SAMPLE_IMAGES).astype(np.int64))
    for row in rows.tolist():
        try:
            size = stored_size(reader.read(np.array([row]))[0].tobytes())
        except ImageError:
            continue
        if size is not None:
            sizes[size] += 1
    if not sizes:
        raise RecordError(
            f"{records.name}: the header of an image must state the image size, got {len(rows)} "
            "sampled images without a size; the set is damaged, make or copy it again"
        )
    (found, count), wanted = sizes.most_common(1)[0], stated.image_size
    if wanted and (found in (wanted, wanted[::-1]) or 2 * count <= sizes.total()):
        found = wanted
    elif wanted:
        text = "it states {}x{} pixels, but most images have {}x{}".format(*wanted, *found)
        findings.add("property", None, text)
    if found[0] * found[1] > MAX_PIXELS:
        raise RecordError(
            f"{records.name}: images of more than {MAX_PIXELS} pixels are not decoded, got "
            f"{found[0]}x{found[1]}; make a set of smaller images"
        )
    return found
