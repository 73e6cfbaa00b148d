# SPDX-License-Identifier: Apache-2.0
"""Open InsightFace record sets as they are, one or several: parse, join, filter, measure.

A set is ``train.rec`` (RecordIO), ``train.idx`` (``key<TAB>offset`` lines) and ``property``
(``num_classes,height,width``, more lines allowed).  Sets from InsightFace begin with a header
record at key 0 that has no image, only two numbers: the first and the last-plus-one key of the
identity records, which come after the images, have no image either, and give the first and
last-plus-one image key of one person.  Sets from im2rec have neither.  Nothing is rewritten: only
the index rows of images are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.records import classes
from pipeline.records.image_size import compare_size, measure
from pipeline.records.index_cache import keep_columns, kept_columns, narrow, release_freed_memory
from pipeline.records.labels import (
    check_labels,
    classes_of,
    labels_from_identities,
    labels_from_scan,
    read_header_record,
)
from pipeline.records.mapped import RecordError
from pipeline.records.property_file import read_property
from pipeline.records.record_set import RecordSet
from pipeline.records.recordio import (
    RecordFile,
    bytes_after,
    check_index,
    find_files,
    map_rec,
    read_index,
)

LARGE = 200_000  # records from which on the parsed index is kept: reading it is faster then
_KEPT_FORM = 3  # of the kept index; files of another form are passed over
_RECORD_BYTES = 32  # the least that a record takes
_MANY_MISSING = 1000  # classes without images; fewer cost next to nothing in the class matrix
_MAX_CLASSES = 1 << 24  # batches hold labels as float32
_MAX_STACKED = 1 << 27  # classes of several sets, of which 2 GiB say where each comes from


class _Index(NamedTuple):
    """The images of one set, by key."""

    keys: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    facts: dict[str, Any]  # "notices"; "people" that the header names or 0; people "present"


def open_records(
    path: str | Path | Sequence[str | Path],
    scan_folder: str | Path,
    num_classes: int = 0,
    labels: str = "stacked",
    images_filter: int = 0,
) -> RecordSet:
    """Read the index and the labels of a record set, or of several as one.

    Parameters
    ----------
    path
        A folder with train.rec (or one .rec), or a .rec file; the .idx lies beside it.  Or a
        list of them.
    scan_folder
        Where the parsed index of large sets, and of sets whose labels need a scan of the whole
        .rec, is kept; made if missing.
    num_classes
        Number of people C of the set; 0 takes it from the property file, else from the largest
        label.
    labels
        "stacked": the sets hold different people, the labels of each begin where those of the
        one before end; "shared": the same label is the same person in all of them.
    images_filter
        People with fewer images are left out, and the rest numbered 0, 1, ... in their order;
        0 leaves all as they are.

    Raises
    ------
    RecordError
        If a file is missing, truncated, does not belong to the others, a label is not a whole
        number in ``[0, num_classes)``, an image record holds no image, the sets do not fit
        together, or nobody is left.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    opened = [_open(Path(p), Path(scan_folder), num_classes) for p in paths]
    records, present = opened[0][0], sum(count for _, count in opened)
    if len(opened) > 1:
        records = _join([records for records, _ in opened], labels == "shared")
        if labels == "shared":
            present = classes.count_present(records.labels)
    missing = records.num_classes - present
    if images_filter:
        records = _leave_out(records, images_filter)
    elif missing > present and missing >= _MANY_MISSING:
        hint = (
            f"{records.name}: {present} of {records.num_classes} classes have images; "
            f"data.images_filter=1 leaves the others out and numbers these 0 to {present - 1}"
        )
        records = replace(records, notices=(*records.notices, hint))
    if records.num_classes > _MAX_CLASSES:
        raise RecordError(
            f"{records.name}: holds more classes than the {_MAX_CLASSES} that a batch can tell "
            f"apart, got {records.num_classes}, {present} of them with images; use "
            "data.images_filter=1, which leaves the others out"
        )
    return records


def _open(path: Path, scan_folder: Path, num_classes: int) -> tuple[RecordSet, int]:
    """Return a set, and how many of its people have images."""
    rec, idx = find_files(path)
    keys, offsets, labels, facts = _read_index(rec, idx, scan_folder)
    file = rec.with_name("property")
    said = read_property(file)
    notices = [f"{idx}: {notice}" for notice in facts["notices"]]
    if not num_classes and said.num_classes and facts["people"] not in (0, said.num_classes):
        notices.append(
            f"{file}: names {said.num_classes} people, the header of {rec.name} "
            f"{facts['people']}"
        )
    num_classes = num_classes or said.num_classes or classes_of(labels)
    check_labels(rec, keys, labels, num_classes)
    records = RecordSet(
        files=(rec,),
        file=np.zeros(len(keys), dtype=np.int16),
        keys=keys,
        offsets=offsets,
        labels=labels,
        num_classes=num_classes,
        image_size=said.image_size or (0, 0),
        notices=tuple(notices),
    )
    if not said.image_size:
        return replace(records, image_size=measure(records)), facts["present"]
    compare_size(records, file, said)
    return records, facts["present"]


def _join(sets: list[RecordSet], shared: bool) -> RecordSet:
    first = sets[0]
    for i, records in enumerate(sets):
        if records.image_size != first.image_size:
            raise RecordError(
                f"{records.name}: its images are {records.image_size[0]}x{records.image_size[1]} "
                f"pixels, got {first.image_size[0]}x{first.image_size[1]} in {first.name}; sets "
                "that are read together need images of one size"
            )
        if records.files[0].resolve() in (r.files[0].resolve() for r in sets[:i]):
            raise RecordError(
                f"data.records: record set listed twice, got {records.name}; name each set once"
            )
    total = sum(records.num_classes for records in sets)
    if not shared and total > _MAX_STACKED:
        raise RecordError(
            f"data.records: the sets hold more than {_MAX_STACKED} classes together, got "
            f"{total}; number the people of each set from 0 on without gaps"
        )
    merge = classes.share if shared else classes.stack
    labels, num_classes, origins = merge(
        [records.labels for records in sets], [records.num_classes for records in sets]
    )
    return RecordSet(
        files=tuple(records.files[0] for records in sets),
        file=np.repeat(np.arange(len(sets), dtype=np.int16), [len(records) for records in sets]),
        keys=np.concatenate([records.keys for records in sets]),
        offsets=np.concatenate([records.offsets for records in sets]),
        labels=labels,
        num_classes=num_classes,
        image_size=first.image_size,
        origins=origins,
        notices=tuple(notice for records in sets for notice in records.notices),
    )


def _leave_out(records: RecordSet, images_filter: int) -> RecordSet:
    rows, labels, kept = classes.renumber(records.labels, records.num_classes, images_filter)
    if not len(kept):
        most = int(np.bincount(records.labels).max())
        raise RecordError(
            f"data.images_filter: nobody in {records.name} has {images_filter} images, got "
            f"{most} at the most; lower data.images_filter"
        )
    if records.origins is None:  # one set, or several with shared labels
        place = 0 if len(records.files) == 1 else classes.SHARED
        origins = classes.origins_of(place, kept)
    else:
        origins = records.origins[kept]
    return replace(
        records,
        file=records.file[rows],
        keys=records.keys[rows],
        offsets=records.offsets[rows],
        labels=labels,
        num_classes=len(kept),
        origins=origins,
    )


def _read_index(rec: Path, idx: Path, scan_folder: Path) -> _Index:
    """Return the index that an earlier call has kept, or parse it."""
    marks = [(f.resolve(), f.stat().st_size, f.stat().st_mtime_ns) for f in (rec, idx)]
    mark = hashlib.sha256(repr((_KEPT_FORM, marks)).encode()).hexdigest()[:16]
    kept = scan_folder / f"pictures-{mark}.npy"
    if kept.is_file():
        try:
            return _read_kept(kept)
        except (ValueError, OSError, EOFError):
            kept.unlink(missing_ok=True)  # half written by a crash of the host: parse again
    index, scanned = _parse(rec, idx)
    index = index._replace(labels=narrow(index.labels))
    if index.labels.dtype.kind == "i" and index.labels.min() >= 0:  # else they are refused later
        index.facts["present"] = classes.count_present(index.labels)
    if not scanned and len(index.keys) < LARGE:
        return index
    facts = np.frombuffer(json.dumps(index.facts).encode(), dtype=np.uint8)
    keep_columns(kept, index.offsets, narrow(index.keys), index.labels, facts)
    del index
    release_freed_memory()
    return _read_kept(kept)


def _read_kept(path: Path) -> _Index:
    offsets, keys, labels, facts = kept_columns(path, 4)
    return _Index(keys, offsets, labels, json.loads(facts.tobytes()))


def _parse(rec: Path, idx: Path) -> tuple[_Index, bool]:
    """Return the index, and whether the .rec had to be scanned."""
    keys, offsets = read_index(idx)
    file = RecordFile(rec, idx, map_rec(rec), keys, offsets)
    check_index(file)
    header = read_header_record(file)
    notices, labels = [], None
    if header is not None:
        notices = header.notices(keys)
        labels = labels_from_identities(file, header)
        images = header.images
    last = int(np.argmax(offsets))
    after = bytes_after(file.data, int(offsets[last]))
    if not notices and after >= _RECORD_BYTES:
        notices.append(
            f"its last record, of key {keys[last]}, is followed by {after} bytes of "
            f"{rec.name} that it does not name"
        )
    scanned = labels is None
    if labels is None:
        images, labels = labels_from_scan(file, header)
    if not len(images):
        raise RecordError(f"{rec}: holds no image, got {len(keys)} records without one")
    rows: np.ndarray | slice = images
    if images[-1] - images[0] == len(images) - 1:  # one after the other: no copy of millions
        rows = slice(int(images[0]), int(images[-1]) + 1)
    people = header.end - header.begin if header else 0
    facts = {"notices": notices, "people": people, "present": 0}
    return _Index(keys[rows], offsets[rows], labels, facts), scanned
