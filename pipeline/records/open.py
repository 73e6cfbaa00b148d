# SPDX-License-Identifier: Apache-2.0
"""Open InsightFace record sets without changing them: parse the index, join sets, filter people.

A set consists of ``train.rec`` (RecordIO), ``train.idx`` (``key<TAB>offset`` lines) and
``property`` (``num_classes,height,width``; further lines are ignored).

InsightFace's sets also have records without images.  The header record, key 0, holds the key of the
first identity record and the key after the last identity record.  The identity records follow the
images.  Each identity record holds the key of the first image of one person and the key after that
person's last image.  Sets from im2rec have neither a header record nor identity records.
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
from pipeline.records.class_record import fingerprint
from pipeline.records.index_cache import (
    DamagedIndex,
    load_columns,
    narrow,
    release_freed_memory,
    save_columns,
)
from pipeline.records.labels import (
    check_labels,
    count_classes,
    labels_from_identities,
    labels_from_scan,
    read_header_record,
)
from pipeline.records.mapped import RecordError
from pipeline.records.property_file import check_image_size, measure, read_property
from pipeline.records.record_set import RecordSet
from pipeline.records.recordio import (
    RecordFile,
    check_index,
    count_bytes_after,
    find_files,
    map_rec,
    read_index,
)

MIN_CACHED_RECORDS = 200_000  # smallest number of records for which the parsed index is cached
_CACHE_FORMAT = 4  # format version of the cached index, on which the file name depends
_MIN_RECORD_BYTES = 32
# The log mentions classes without images only if there are at least this many.
_MIN_EMPTY_CLASSES = 1000
_MAX_CLASSES = 1 << 24  # labels in batches are float32, which is exact up to this number
# Largest number of classes of several stacked sets, before data.images_filter drops classes.
_MAX_STACKED_CLASSES = 1 << 27


class _Index(NamedTuple):
    """Index of the images of one set, sorted by key."""

    keys: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    # Entries: "notices", sentences for the log; "people", number of people in the header record, or
    # 0 without such a record; "present", number of people with images.
    facts: dict[str, Any]


def open_records(
    path: str | Path | Sequence[str | Path],
    scan_folder: str | Path,
    num_classes: int = 0,
    labels: str = "stacked",
    images_filter: int = 0,
) -> RecordSet:
    """Read the index and the labels of one record set, or of several sets joined into one.

    Parameters
    ----------
    path
        A folder with train.rec (or with one .rec of another name), a .rec file with its .idx in
        the same folder, or a list of such paths.
    scan_folder
        Folder, created if missing, for the cached index of sets with at least 200,000 records and
        of sets whose labels need a scan of the whole .rec.
    num_classes
        Number of classes of each set.  0: the number in the property file or, without that file,
        the largest label plus 1.
    labels
        "stacked": the sets hold different people, and the labels of a set follow those of the set
        before it; "shared": the same label is the same person in all sets.
    images_filter
        Minimum number of images per person.  People with fewer images are dropped, and the
        remaining people are renumbered 0, 1, 2, ... in their old order.  0: no filter.

    Raises
    ------
    RecordError
        If a file is missing, truncated or belongs to another set, if a label is not a whole number
        in ``[0, num_classes)``, if an image record holds no image, if the sets do not fit together,
        or if the filter drops all people.
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
        records = _filter_people(records, images_filter)
    elif missing > present and missing >= _MIN_EMPTY_CLASSES:
        hint = (
            f"{records.name}: {present} of {records.num_classes} classes have images; "
            "set data.images_filter=1 to drop the classes without images and to renumber the "
            f"remaining ones 0 to {present - 1}"
        )
        records = replace(records, notices=(*records.notices, hint))
    if records.num_classes > _MAX_CLASSES:
        raise RecordError(
            f"{records.name}: has too many classes for labels in float32, which are exact up to "
            f"{_MAX_CLASSES}, got {records.num_classes}, {present} of them with images; set "
            "data.images_filter=1 to drop the classes without images"
        )
    return records


def _open(path: Path, scan_folder: Path, num_classes: int) -> tuple[RecordSet, int]:
    """Open one record set; return the set and its number of people with images."""
    rec, idx = find_files(path)
    keys, offsets, labels, facts = _load_index(rec, idx, scan_folder)
    file = rec.with_name("property")
    found = read_property(file)
    notices = [f"{idx}: {notice}" for notice in facts["notices"]]
    if not num_classes and found.num_classes and facts["people"] not in (0, found.num_classes):
        notices.append(
            f"{file}: states {found.num_classes} classes, but the header of {rec.name} lists "
            f"{facts['people']} identities"
        )
    num_classes = num_classes or found.num_classes or count_classes(labels)
    check_labels(rec, keys, labels, num_classes)
    records = RecordSet(
        files=(rec,),
        file=np.zeros(len(keys), dtype=np.int16),
        keys=keys,
        offsets=offsets,
        labels=labels,
        num_classes=num_classes,
        image_size=found.image_size or (0, 0),
        fingerprints=(fingerprint(labels, offsets),),
        notices=tuple(notices),
    )
    if found.image_size:
        check_image_size(records, file, found)
    else:
        records = replace(records, image_size=measure(records))
    return records, facts["present"]


def _join(sets: list[RecordSet], shared: bool) -> RecordSet:
    """Join several sets into one record set.

    Raises RecordError if image sizes differ, if a set is listed twice, or if there are too many
    classes.
    """
    first = sets[0]
    for i, records in enumerate(sets):
        if records.image_size != first.image_size:
            (height, width), (first_height, first_width) = records.image_size, first.image_size
            raise RecordError(
                f"{records.name}: the images are {height}x{width} pixels, got "
                f"{first_height}x{first_width} in {first.name}; all sets of a run need images of "
                "one size"
            )
        if records.files[0].resolve() in (r.files[0].resolve() for r in sets[:i]):
            raise RecordError(
                f"data.records: record set listed twice, got {records.name}; name each set once"
            )
    labels, counts = [records.labels for records in sets], [records.num_classes for records in sets]
    if shared:
        joined, num_classes, origins = np.concatenate(labels), max(counts), None
    elif sum(counts) > _MAX_STACKED_CLASSES:
        raise RecordError(
            f"data.records: the sets have more than {_MAX_STACKED_CLASSES} classes together, got "
            f"{sum(counts)}; number the identities of each set 0, 1, 2, ... without gaps"
        )
    else:
        joined, num_classes, origins = classes.stack(labels, counts)
    return RecordSet(
        files=tuple(records.files[0] for records in sets),
        file=np.repeat(np.arange(len(sets), dtype=np.int16), list(map(len, sets))),
        keys=np.concatenate([records.keys for records in sets]),
        offsets=np.concatenate([records.offsets for records in sets]),
        labels=joined,
        num_classes=num_classes,
        image_size=first.image_size,
        origins=origins,
        fingerprints=tuple(name for records in sets for name in records.fingerprints),
        notices=tuple(notice for records in sets for notice in records.notices),
    )


def _filter_people(records: RecordSet, images_filter: int) -> RecordSet:
    """Drop people with fewer than ``images_filter`` images from a set, and renumber the others."""
    rows, labels, kept = classes.renumber(records.labels, records.num_classes, images_filter)
    if not len(kept):
        most = int(np.bincount(records.labels).max())
        raise RecordError(
            f"data.images_filter: no identity in {records.name} has {images_filter} images, got at "
            f"most {most} images per identity; lower data.images_filter"
        )
    if records.origins is not None:
        origins = records.origins[kept]
    else:
        origins = classes.make_origins(0 if len(records.files) == 1 else classes.SHARED, kept)
    return replace(
        records,
        file=records.file[rows],
        keys=records.keys[rows],
        offsets=records.offsets[rows],
        labels=labels,
        num_classes=len(kept),
        origins=origins,
    )


def _load_index(rec: Path, idx: Path, scan_folder: Path) -> _Index:
    """Load the cached index of a set, or parse its .idx.

    A parsed index is cached if the set is large or if its labels needed a scan of the .rec.
    """
    stats = [(f.resolve(), f.stat().st_size, f.stat().st_mtime_ns) for f in (rec, idx)]
    digest = hashlib.sha256(repr((_CACHE_FORMAT, stats)).encode()).hexdigest()[:16]
    cached = scan_folder / f"index-{digest}.npy"
    if cached.is_file():
        try:
            return _load_cached(cached)
        except (DamagedIndex, OSError, ValueError):  # ValueError: the file is empty
            cached.unlink(missing_ok=True)  # damaged by a crash of the host, for example
    index, scanned = _parse(rec, idx)
    index = index._replace(labels=narrow(index.labels))
    # check_labels refuses negative and fractional labels later.
    if index.labels.dtype.kind == "i" and index.labels.min() >= 0:
        index.facts["present"] = classes.count_present(index.labels)
    if not scanned and len(index.keys) < MIN_CACHED_RECORDS:
        return index
    facts = np.frombuffer(json.dumps(index.facts).encode(), dtype=np.uint8)
    save_columns(cached, index.offsets, narrow(index.keys), index.labels, facts)
    del index
    release_freed_memory()
    return _load_cached(cached)


def _load_cached(path: Path) -> _Index:
    offsets, keys, labels, facts = load_columns(path, 4)
    return _Index(keys, offsets, labels, json.loads(facts.tobytes()))


def _parse(rec: Path, idx: Path) -> tuple[_Index, bool]:
    """Parse an .idx; return the index and whether its labels needed a scan of the .rec."""
    keys, offsets = read_index(idx)
    file = RecordFile(rec, idx, map_rec(rec), keys, offsets)
    check_index(file)
    header = read_header_record(file)
    notices, labels = [], None
    if header is not None:
        notices = header.notices(keys)
        labels = labels_from_identities(file, header)
        images = header.image_rows
    last = int(np.argmax(offsets))
    after = count_bytes_after(file.data, int(offsets[last]))
    if not notices and after >= _MIN_RECORD_BYTES:
        notices.append(
            f"key {keys[last]} is the last record in the .idx, but {after} more bytes of "
            f"{rec.name} follow this record"
        )
    scanned = labels is None
    if labels is None:
        images, labels = labels_from_scan(file, header)
    if not len(images):
        raise RecordError(
            f"{rec}: holds no image, got {len(keys)} records without image; use another record set"
        )
    rows: np.ndarray | slice = images
    if images[-1] - images[0] == len(images) - 1:
        # If the rows have no gaps, index with a slice, which gives views instead of copies.
        rows = slice(int(images[0]), int(images[-1]) + 1)
    people = header.end - header.first_identity if header else 0
    facts = {"notices": notices, "people": people, "present": 0}
    return _Index(keys[rows], offsets[rows], labels, facts), scanned
