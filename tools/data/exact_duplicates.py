# SPDX-License-Identifier: Apache-2.0
"""Find images with the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np


def find_exact_duplicates(
    checksums: np.ndarray, sizes: np.ndarray, read: Callable[[int], bytes | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Find the images that have the same bytes as an image before them.

    Only images with equal checksums and sizes are read.

    Parameters
    ----------
    checksums
        CRC-32 of each of N images, int64 (N,).
    sizes
        Size of each image in bytes, int64 (N,); 0: the image is not compared.
    read
        Function that returns the bytes of the image with a given index from 0 to N - 1, or None if
        the image cannot be read.

    Outputs
    -------
    Two int64 arrays (M,): the indices of the duplicates, sorted; and for each duplicate, the index
    of the first image with the same bytes.
    """
    order = np.lexsort((checksums, sizes))
    same = (np.diff(checksums[order]) == 0) & (np.diff(sizes[order]) == 0) & (sizes[order[1:]] > 0)
    pairs: list[tuple[int, int]] = []
    # A run of n times True in ``same`` stands for n + 1 images with equal checksums and sizes.
    steps = np.diff(np.concatenate(([0], same.astype(np.int8), [0])))
    for start, stop in zip(np.flatnonzero(steps > 0), np.flatnonzero(steps < 0), strict=True):
        pairs += _compare(sorted(order[start : stop + 1].tolist()), read)
    found = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _compare(rows: list[int], read: Callable[[int], bytes | None]) -> list[tuple[int, int]]:
    """Return a pair for each duplicate: its index, and the index of the first image like it.

    ``rows`` are the indices of images with equal checksums and equal sizes, ascending.
    """
    firsts: dict[bytes, int] = {}
    pairs = []
    for row in rows:
        image = read(row)
        if image is None:
            continue
        first = firsts.setdefault(hashlib.sha256(image).digest(), row)
        if first != row:
            pairs.append((row, first))
    return pairs
