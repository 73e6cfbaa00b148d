# SPDX-License-Identifier: Apache-2.0
"""Which records of a .rec are pictures, and of whom: from the identity records or from a scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.record_file import MAGIC, RecordError, read_headers


def labels_from_identities(
    data: np.ndarray, keys: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return (rows of pictures, their labels) from the header and identity records.

    The labels are None where the identity records do not settle them, both where there is no
    header record.
    """
    if keys[0] != 0:
        return None, None
    header = read_headers(data, offsets[:1])
    if header.flag[0] < 2 or header.body[0] > 0:
        return None, None
    begin, end = int(header.label[0]), int(header.second[0])
    if end > 1 << 24:  # float32 does not hold the keys of larger sets exactly
        return None, None
    images = np.flatnonzero((keys > 0) & (keys < begin))
    people = np.flatnonzero((keys >= begin) & (keys < end))
    if not len(images) or len(people) != end - begin:
        return images, None
    identity = read_headers(data, offsets[people])
    first, stop = identity.label.astype(np.int64), identity.second.astype(np.int64)
    some = np.flatnonzero(stop > first)
    first, stop = first[some], stop[some]
    order = np.argsort(first)
    first, stop = first[order], stop[order]
    # The ranges must tile the picture keys, and both ends of each carry the same label.
    if not len(first) or (first[1:] != stop[:-1]).any():
        return images, None
    if first[0] != keys[images[0]] or stop[-1] != keys[images[-1]] + 1:
        return images, None
    if len(images) != stop[-1] - first[0]:
        return images, None
    head = read_headers(data, offsets[images[first - first[0]]])
    tail = read_headers(data, offsets[images[stop - 1 - first[0]]])
    if (head.magic != MAGIC).any() or (head.label != tail.label).any():
        return images, None
    return images, np.repeat(head.label, stop - first)


def labels_from_scan(
    data: np.ndarray,
    rec: Path,
    keys: np.ndarray,
    offsets: np.ndarray,
    images: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows of pictures, their labels) from one pass over all records.

    Raises
    ------
    RecordError
        If no record starts at one of the offsets.
    """
    headers = read_headers(data, offsets)
    wrong = np.flatnonzero(headers.magic != MAGIC)
    if len(wrong):
        raise RecordError(
            f"{rec}: no record starts at offset {offsets[wrong[0]]}, where key "
            f"{keys[wrong[0]]} should be; the .idx belongs to another .rec"
        )
    rows = np.flatnonzero(headers.body > 0) if images is None else images
    return rows, headers.label[rows]
