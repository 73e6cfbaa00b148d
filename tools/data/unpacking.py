# SPDX-License-Identifier: Apache-2.0
"""Write the images of a record set to one folder per identity, as ``pack`` reads them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atomic_write import atomic_write
from launch.config.printable_text import printable
from tools.data.identity_names import are_folder_names
from tools.data.record_sets import NamedSet, ProgressFunction, read_images

if TYPE_CHECKING:
    from pipeline.records.record_set import RecordSet

STATE_FOLDER = ".unfinished-unpack"
_PLAN, _STAGING = "set.txt", "identity"
_SUFFIXES = (
    (b"\xff\xd8", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"BM", ".bmp"),
    (b"RIFF", ".webp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)
"""First bytes and file suffix of each image format; images of other formats get ".jpg"."""


def folder_names(opened_set: NamedSet) -> list[str]:
    """Return the folder name of each label.

    These are the names of the identities, if folders may have these names and if ``pack`` then
    gives the identities the same labels.  Otherwise they are the labels with leading zeros.
    """
    if opened_set.has_names and are_folder_names(opened_set.names):
        return opened_set.names
    count = len(opened_set.names)
    return [f"{label:0{len(str(count - 1))}d}" for label in range(count)]


def check_state(out: Path, opened_set: NamedSet) -> None:
    """Raise ValueError if ``out`` holds the interrupted unpacking of another set."""
    plan = out / STATE_FOLDER / _PLAN
    if plan.is_file() and plan.read_text(errors="replace") != _plan(opened_set):
        raise ValueError(
            f"{printable(out)}: holds the interrupted unpacking of another set, got "
            f"{STATE_FOLDER}; choose another folder"
        )


def _plan(opened_set: NamedSet) -> str:
    records = opened_set.records
    facts = repr((records.fingerprints, sorted(records.checksums().items()), opened_set.names))
    return hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()


def unpack(out: Path, opened_set: NamedSet, progress: ProgressFunction) -> None:
    """Write each image to ``out/<identity>/<key>`` with the suffix of its format.

    The folder of an identity appears when all of its images are written, so a repeated call writes
    only the missing folders.  While files are missing, ``out`` holds a folder
    ``.unfinished-unpack``.
    """
    records, state = opened_set.records, out / STATE_FOLDER
    state.mkdir(exist_ok=True)
    with atomic_write(state / _PLAN, "w") as file:
        file.write(_plan(opened_set))
    names = folder_names(opened_set)
    order = np.argsort(records.labels, kind="stable")
    labels, starts = np.unique(records.labels[order], return_index=True)
    bounds = [*starts.tolist(), len(order)]
    for place, label in enumerate(labels.tolist()):
        target = out / names[label]
        if target.exists():
            continue
        staging = state / _STAGING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        _write_images(records, order[bounds[place] : bounds[place + 1]], staging)
        os.rename(staging, target)
        progress("unpacked", bounds[place + 1], len(order))
    _flush(out)
    shutil.rmtree(state)


def _write_images(records: RecordSet, rows: np.ndarray, folder: Path) -> None:
    width = len(str(int(records.keys.max())))
    keys: Sequence[int] = records.keys[rows].tolist()
    images = read_images(records, rows, rows, lambda *_: None)
    for key, (_, jpeg) in zip(keys, images, strict=True):
        suffix = next((s for start, s in _SUFFIXES if jpeg.startswith(start)), ".jpg")
        with open(folder / f"{key:0{width}d}{suffix}", "xb", buffering=0) as file:
            view = memoryview(jpeg)
            while view:
                view = view[file.write(view) :]


def _flush(folder: Path) -> None:
    """Flush the file system that holds a folder; to flush every file would take more time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        ctypes.CDLL(None).syncfs(descriptor)
    finally:
        os.close(descriptor)
