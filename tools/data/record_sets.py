# SPDX-License-Identifier: Apache-2.0
"""Open record sets with the names of their identities; write selected images as a new set.

The new set has unchanged images, a header record, identity records and identities.json.  Its
identities are renumbered, and identities.json has their names.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from atomic_write import rename_together
from launch.config.printable_text import printable
from pipeline.records.open import RecordSet, open_records
from pipeline.records.reader import RecordReader
from pipeline.records.recordio import find_files
from pipeline.records.writer import MAX_KEYS, write_record_set
from tools.data import identity_names
from tools.data.identity_names import read_names, sort_names, write_names
from tools.data.output_folder import explained_writing

STAGING_FOLDER = ".unfinished-set"
_CHUNK_RECORDS = 1024
ProgressFunction = Callable[[str, int, int], None]


class NamedSet(NamedTuple):
    """Record set and the names of its identities."""

    records: RecordSet
    names: list[str]
    """Name of each label; the label itself if the set has no names."""
    has_names: bool
    """Whether at least some of ``names`` come from an identities.json."""


def check_sources(sources: Sequence[Path]) -> None:
    """Check that each source is a record set, and that no set is named twice.

    Raises
    ------
    ValueError
        If a source is neither a .rec file nor a folder with one, or if a set is named twice.
    """
    known: dict[Path, Path] = {}
    for source in sources:
        if not source.is_dir() and not source.is_file():
            what = "a special file" if source.exists() else "no such file or folder"
            raise ValueError(
                f"SET: {printable(source)} must be a folder with train.rec, or a .rec file, got "
                f"{what}; correct the path"
            )
        if source.is_dir() and not any(source.glob("*.rec")):
            raise ValueError(
                f"SET: {printable(source)} must be a folder with train.rec, or a .rec file, got a "
                "folder without a .rec file; make a set with python -m tools.data pack"
            )
        rec = find_files(source, "SET")[0].resolve()
        if rec in known:
            raise ValueError(
                f"SET: each set must be named once, got {printable(known[rec])} and "
                f"{printable(source)}; omit one of them"
            )
        known[rec] = source


@contextmanager
def opened(sources: Sequence[Path], labels: str = "stacked") -> Iterator[NamedSet]:
    """Open one or more record sets as one; print notices about them to stderr.

    Parameters
    ----------
    sources
        Folders with train.rec, or .rec files.
    labels
        How to combine the labels of several sets: "stacked" or "shared" as in ``data.labels``, or
        "names", where identities with equal names are the same person.

    Raises
    ------
    RecordError, ValueError
        If a set or its identities.json cannot be used.
    """
    check_sources(sources)
    with tempfile.TemporaryDirectory() as scan:
        mode = "stacked" if labels == "names" else labels
        records = open_records([Path(source) for source in sources], scan, labels=mode)
        for notice in records.notices:
            print(f"notice: {printable(notice)}", file=sys.stderr)
        names, has_names = _names(records, labels)
        if labels == "names":
            records, names = _join_names(records, names)
        yield NamedSet(records, names, has_names)


def _names(records: RecordSet, labels: str) -> tuple[list[str], bool]:
    """Return the name of each label, and whether at least one set has an identities.json."""
    paths = [rec.with_name(identity_names.FILE_NAME) for rec in records.files]
    if len(paths) > 1 and labels == "shared":
        return _shared_names(records, paths)
    counts = [records.num_classes]
    if records.origins is not None:
        counts = np.bincount(records.origins[:, 0], minlength=len(paths)).tolist()
    found = [read_names(path, count) for path, count in zip(paths, counts, strict=True)]
    missing = [path for path, names in zip(paths, found, strict=True) if names is None]
    if missing and labels == "names":
        raise ValueError(
            f"--labels names: needs {identity_names.FILE_NAME} in every set, got none in "
            f"{printable(missing[0].parent)}; use --labels stacked or shared"
        )
    named = [
        [str(label) for label in range(count)] if names is None else names
        for names, count in zip(found, counts, strict=True)
    ]
    flat = [name for names in named for name in names]
    # With --labels stacked, equal names in several sets mean different people.  If there are equal
    # names, every name gets the index of its set as a prefix.
    if labels != "names" and len(paths) > 1 and len(set(flat)) < len(flat):
        flat = [f"{index}-{name}" for index, names in enumerate(named) for name in names]
    return flat, len(missing) < len(paths)


def _shared_names(records: RecordSet, paths: Sequence[Path]) -> tuple[list[str], bool]:
    """Return the name of each label that the sets share, and whether the names come from files.

    If the identities.json files contradict each other, or if none of them names every label, the
    labels serve as names.
    """
    found = [names for path in paths if (names := read_names(path, None)) is not None]
    longest = max(found, key=len, default=[])
    if len(longest) == records.num_classes and all(n == longest[: len(n)] for n in found):
        return longest, True
    return [str(label) for label in range(records.num_classes)], False


def _join_names(records: RecordSet, names: list[str]) -> tuple[RecordSet, list[str]]:
    """Give identities with equal names the same label."""
    joined = sort_names(set(names))
    numbers = {name: number for number, name in enumerate(joined)}
    new = np.array([numbers[name] for name in names], dtype=np.int32)
    return replace(
        records, labels=new[records.labels], num_classes=len(joined), origins=None
    ), joined


class Selection(NamedTuple):
    """Images of a record set that form a new set."""

    rows: np.ndarray
    """Rows of the images, int64 (M,), sorted by label."""
    labels: np.ndarray
    """New label of each image, int64 (M,), ascending from 0 without gaps."""
    names: list[str]
    """Name of each new label."""


def select(opened_set: NamedSet, rows: np.ndarray) -> Selection:
    """Select rows of a set; number their identities 0, 1, 2, ... in the order of their labels.

    The images of an identity keep the order of the set.

    Raises
    ------
    ValueError
        If there are no rows, or too many for one set with identity records.
    """
    records = opened_set.records
    if not len(rows):
        raise ValueError(
            f"{printable(records.name)}: at least one image must be selected, got 0 of "
            f"{len(records)}; change the options"
        )
    labels = records.labels[rows]
    order = np.argsort(labels, kind="stable")
    present, new = np.unique(labels[order], return_inverse=True)
    if len(rows) + len(present) >= MAX_KEYS:
        raise ValueError(
            f"{printable(records.name)}: a set with identity records holds fewer than {MAX_KEYS} "
            f"images and identities, got {len(rows)} images of {len(present)} identities; use "
            "shuffle, which writes no identity records"
        )
    return Selection(rows[order], new, [opened_set.names[label] for label in present.tolist()])


def write_selection(
    out: Path,
    opened_set: NamedSet,
    selection: Selection,
    progress: ProgressFunction,
    write_more: Callable[[Path], Sequence[str]] = lambda folder: (),
) -> None:
    """Write selected images as a record set with identities.json.

    All files are first written to a hidden folder in ``out``, and then moved to ``out``.
    ``property`` is moved last, so a folder with this file holds a complete set.

    Parameters
    ----------
    write_more
        Function that writes further files to a folder, and returns their names.

    Raises
    ------
    RecordError, ValueError
        If a record is damaged, or if ``out`` cannot be written; no file remains then.
    """
    records, staging = opened_set.records, out / STAGING_FOLDER
    images = read_images(records, selection.rows, selection.labels, progress)
    with explained_writing(out):
        try:
            staging.mkdir()
            write_record_set(staging, images, len(selection.names), records.image_size)
            write_names(staging / identity_names.FILE_NAME, selection.names)
            more = write_more(staging)
            names = ["train.rec", "train.idx", identity_names.FILE_NAME, *more, "property"]
            rename_together([staging / name for name in names], [out / name for name in names])
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def read_images(
    records: RecordSet, rows: np.ndarray, labels: np.ndarray, progress: ProgressFunction
) -> Iterator[tuple[int, bytes]]:
    """Yield a pair (label, JPEG bytes) for each row; ``labels`` are the labels of ``rows``."""
    reader = RecordReader(records)
    for start in range(0, len(rows), _CHUNK_RECORDS):
        part = slice(start, start + _CHUNK_RECORDS)
        jpegs = [jpeg.tobytes() for jpeg in reader.read(rows[part])]
        reader.check_files()
        yield from zip(labels[part].tolist(), jpegs, strict=True)
        progress("written", min(part.stop, len(rows)), len(rows))


def estimate_bytes(records: RecordSet, rows: np.ndarray) -> int:
    """Return an upper bound on the total size in bytes of the records of some rows.

    The bound assumes that a record ends where the next record of its file begins.
    """
    total = 0
    for place, rec in enumerate(records.files):
        offsets = records.offsets[rows[records.file[rows] == place]]
        starts = np.unique(records.offsets[records.file == place])
        sizes = np.diff(starts, append=rec.stat().st_size)
        total += int(sizes[np.searchsorted(starts, offsets)].sum())
    return total
