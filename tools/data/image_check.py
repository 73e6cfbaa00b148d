# SPDX-License-Identifier: Apache-2.0
"""Check the images of a record set: decoding, duplicates, and images that look the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

import ops
from pipeline.records.reader import RecordReader
from pipeline.records.record_set import ImageError, RecordSet
from tools.data.decode_check import DecodeCheck
from tools.data.exact_duplicates import find_exact_duplicates
from tools.data.near_duplicates import HASH_BITS, HASH_BYTES, find_near_duplicates, hash_images

if TYPE_CHECKING:
    from tools.data.findings import Findings


def check_images(
    records: RecordSet,
    *,
    threads: int,
    near_duplicates: bool,
    findings: Findings,
    progress: Callable[[int, int], None],
) -> None:
    """Decode all images of a record set and compare them with each other.

    Parameters
    ----------
    records
        Record set with one file.
    threads
        Number of decoder threads.
    near_duplicates
        Whether to look for images that look the same.
    findings
        List to which faults are added.
    progress
        Function that is called with the numbers of decoded images and of all images.
    """
    count = len(records)
    reader = RecordReader(records, ops.compiled())
    check = DecodeCheck(reader, reader.kernels, threads, findings)
    order = records.file_order()
    sound = np.zeros(count, dtype=bool)
    sizes, checksums = np.zeros(count, np.int64), np.zeros(count, np.int64)
    hashes = np.zeros((count if near_duplicates else 0, HASH_BYTES), np.uint8)
    done = 0
    for batch in check(np.arange(count) if order is None else order):
        rows = batch.rows
        sound[rows], sizes[rows], checksums[rows] = batch.sound, batch.sizes, batch.checksums
        if near_duplicates:
            hashes[rows] = hash_images(batch.pixels)
        done += len(rows)
        progress(done, count)
    copies = _list_exact(records, reader, checksums, sizes, findings)
    if near_duplicates:
        sound[copies] = False
        _list_near(records, hashes, np.flatnonzero(sound), findings)


def _list_exact(
    records: RecordSet,
    reader: RecordReader,
    checksums: np.ndarray,
    sizes: np.ndarray,
    findings: Findings,
) -> np.ndarray:
    """List the images with the same bytes as an image before them; return their rows."""

    def read(row: int) -> bytes | None:
        try:
            return reader.read(np.array([row]))[0].tobytes()
        except ImageError:
            return None

    rows, firsts = find_exact_duplicates(checksums, sizes, read)
    keys, labels = records.keys, records.labels
    for row, first in zip(rows.tolist(), firsts.tolist(), strict=True):
        text = f"it has the same bytes as the image of key {keys[first]}"
        if labels[row] != labels[first]:
            text += f", but its label is {labels[row]:g}, not {labels[first]:g}"
        findings.add("duplicate", int(keys[row]), text)
    return rows


def _list_near(
    records: RecordSet, hashes: np.ndarray, rows: np.ndarray, findings: Findings
) -> None:
    """List the images of ``rows`` that look the same as an image before them."""
    found, earlier, distances = find_near_duplicates(hashes[rows])
    for row, first, distance in zip(
        rows[found].tolist(), rows[earlier].tolist(), distances.tolist(), strict=True
    ):
        text = f"it looks the same as the image of key {records.keys[first]}: {distance} of "
        text += f"{HASH_BITS} bits of their hashes differ"
        if records.labels[row] != records.labels[first]:
            text += f"; the labels are {records.labels[row]:g} and {records.labels[first]:g}"
        findings.add("near_duplicate", int(records.keys[row]), text)
