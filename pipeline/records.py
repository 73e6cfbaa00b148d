# SPDX-License-Identifier: Apache-2.0
"""InsightFace record sets as they are, one or several: pictures, labels, number of people.

A set is ``train.rec`` (RecordIO), ``train.idx`` (``key<TAB>offset`` lines) and ``property``
(``num_classes,height,width``, more lines allowed).  Sets from InsightFace begin with a header
record at key 0 that has no picture, only two numbers: the first and the last-plus-one key of the
identity records, which stand after the images, have no picture either, and give the first and
last-plus-one image key of one person.  Sets from im2rec have neither.  Nothing is rewritten: only
the index rows of pictures are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline import classes
from pipeline.index_files import (
    give_back,
    keep_columns,
    kept_columns,
    narrow,
    parts,
)
from pipeline.record_file import (
    RecordError,
    check_index,
    find_files,
    map_rec,
    read_index,
    read_property,
)
from pipeline.record_labels import labels_from_identities, labels_from_scan

__all__ = ["RecordError", "RecordSet", "open_records"]

LARGE = 200_000  # records from which on the parsed index is kept: reading it is faster then
_KEPT_FORM = 2  # of the kept index; files of another form are passed over
_FILE_BITS = 40  # an id is the key, and from here on the place of the file


@dataclass(frozen=True)
class RecordSet:
    """The pictures of one record set or of several, set by set in the order of their keys.

    Row i of the arrays is one picture: ``keys`` (N,) int32 or int64, its key in its .idx;
    ``offsets`` (N,) int64, its place in its .rec in bytes; ``labels`` (N,) int32, its person;
    ``file`` (N,) int16, which of ``files`` it stands in.  ``origins`` (num_classes, 2) int64 says
    which person each class is, as (place in ``files``, label there), where labels were stacked or
    renumbered; the place is -1 where the sets share their labels.
    """

    files: tuple[Path, ...]
    file: np.ndarray
    keys: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    num_classes: int
    image_size: tuple[int, int]
    origins: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def name(self) -> str:
        """The files, for messages."""
        return ", ".join(str(rec) for rec in self.files)

    def ids(self, rows: np.ndarray) -> np.ndarray:
        """Return a number for each row that no other picture has; in one set it is the key."""
        return self.keys[rows] + (self.file[rows].astype(np.int64) << _FILE_BITS)

    def is_in_file_order(self) -> bool:
        """Return whether the rows are in the order of their records, set by set."""
        for part in parts(len(self)):
            part = slice(part.start, part.stop + 1)
            file, offsets = self.file[part], self.offsets[part]
            if not ((offsets[1:] > offsets[:-1]) | (file[1:] != file[:-1])).all():
                return False
        return True

    def in_file_order(self) -> np.ndarray | None:
        """Return the rows in the order of their records, (N,); None where that is 0, 1, 2, ..."""
        return None if self.is_in_file_order() else np.lexsort((self.offsets, self.file))

    def picture(self, row: int) -> str:
        """Return the words that name a picture in a message."""
        return f"{self.files[self.file[row]]}: the picture of key {self.keys[row]}"


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
        If a file is missing, truncated, does not belong to the others, a label is not in
        ``[0, num_classes)``, the sets do not fit together, or nobody is left.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    sets = [_open(Path(p), Path(scan_folder), num_classes) for p in paths]
    records = sets[0] if len(sets) == 1 else _join(sets, labels == "shared")
    return _leave_out(records, images_filter) if images_filter else records


def _open(path: Path, scan_folder: Path, num_classes: int) -> RecordSet:
    rec, idx = find_files(path)
    keys, offsets, labels = _pictures(rec, idx, scan_folder)
    property_classes, image_size = read_property(rec.with_name("property"))
    num_classes = num_classes or property_classes or int(labels.max()) + 1
    if not (labels.min() >= 0 and labels.max() < num_classes):  # so that NaN is found as well
        bad = np.flatnonzero(~((labels >= 0) & (labels < num_classes)))
        raise RecordError(
            f"{rec}: label {labels[bad[0]]:g} in the record of key {keys[bad[0]]} is out of range, "
            f"got num_classes={num_classes}; labels must be 0..{num_classes - 1}"
        )
    records = RecordSet(
        files=(rec,),
        file=np.zeros(len(keys), dtype=np.int16),
        keys=keys,
        offsets=offsets,
        labels=labels.astype(np.int32, copy=False),
        num_classes=num_classes,
        image_size=image_size or (0, 0),
    )
    return records if image_size else _measure(records)


def _join(sets: list[RecordSet], shared: bool) -> RecordSet:
    first = sets[0]
    for i, records in enumerate(sets):
        if records.image_size != first.image_size:
            raise RecordError(
                f"{records.name}: its pictures are {records.image_size[0]}x{records.image_size[1]} "
                f"pixels, got {first.image_size[0]}x{first.image_size[1]} in {first.name}; sets "
                "that are read together need pictures of one size"
            )
        if records.files[0].resolve() in (r.files[0].resolve() for r in sets[:i]):
            raise RecordError(
                f"data.records: a set stands twice, got {records.name}; name each set once"
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
    )


def _leave_out(records: RecordSet, images_filter: int) -> RecordSet:
    rows, labels, kept = classes.renumber(records.labels, records.num_classes, images_filter)
    if not len(kept):
        most = int(np.bincount(records.labels).max())
        raise RecordError(
            f"data.images_filter: nobody in {records.name} has {images_filter} images, got "
            f"{most} at the most; lower data.images_filter"
        )
    origins = records.origins
    if origins is None:
        # One set, or several with shared labels.
        place = 0 if len(records.files) == 1 else classes.SHARED
        origins = classes.origins_of(place, records.num_classes)
    return replace(
        records,
        file=records.file[rows],
        keys=records.keys[rows],
        offsets=records.offsets[rows],
        labels=labels,
        num_classes=len(kept),
        origins=origins[kept],
    )


def _pictures(rec: Path, idx: Path, scan_folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return keys, offsets and labels of the pictures, as kept by an earlier call or parsed."""
    marks = [(f.resolve(), f.stat().st_size, f.stat().st_mtime_ns) for f in (rec, idx)]
    mark = hashlib.sha256(repr((_KEPT_FORM, marks)).encode()).hexdigest()[:16]
    kept = scan_folder / f"pictures-{mark}.npy"
    if kept.is_file():
        try:
            return _read_kept(kept)
        except (ValueError, OSError, EOFError):
            kept.unlink(missing_ok=True)  # half written by a crash of the host: parse again
    keys, offsets, labels, scanned = _parse(rec, idx)
    if not scanned and len(keys) < LARGE:
        return keys, offsets, labels
    keep_columns(kept, offsets, narrow(keys), narrow(labels))
    del keys, offsets, labels
    give_back()
    return _read_kept(kept)


def _read_kept(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    offsets, keys, labels = kept_columns(path, 3)
    return keys, offsets, labels


def _parse(rec: Path, idx: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Return keys, offsets and labels of the pictures, and whether the .rec had to be scanned."""
    keys, offsets = read_index(idx)
    data = map_rec(rec)
    check_index(rec, idx, data, keys, offsets)
    images, labels = labels_from_identities(data, keys, offsets)
    scanned = images is None or labels is None
    if images is None or labels is None:
        images, labels = labels_from_scan(data, rec, keys, offsets, images)
    if not len(images):
        raise RecordError(f"{rec}: holds no picture, got {len(keys)} records without one")
    rows: np.ndarray | slice = images
    if images[-1] - images[0] == len(images) - 1:  # one after the other: no copy of millions
        rows = slice(int(images[0]), int(images[-1]) + 1)
    return keys[rows], offsets[rows], labels, scanned


def _measure(records: RecordSet) -> RecordSet:
    """Return the set with the size of its first picture, for sets without a property file."""
    import cv2

    from pipeline.record_reader import RecordReader  # late: it imports this module

    reader = RecordReader(records)
    image = cv2.imdecode(reader.read(np.arange(1))[0], cv2.IMREAD_COLOR)
    reader.check_files()
    if image is None:
        raise RecordError(f"{records.picture(0)} is no JPEG")
    return replace(records, image_size=(image.shape[0], image.shape[1]))
