# SPDX-License-Identifier: Apache-2.0
"""Find images that look the same, by a perceptual hash of 255 bits.

The hash has one bit for each of the lowest 16x16 coefficients of the discrete cosine transform of
an image's grey levels, except the mean.  The bit tells whether the coefficient is positive.
C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2,
describes this hash with fewer coefficients.  Two images are declared to look the same if at most
MAX_DISTANCE_BITS bits of their hashes differ.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

MAX_DISTANCE_BITS = 32
"""Largest number of different bits of two hashes whose images look the same.  If an aligned face
is scaled by 2 %, the hash of the copy differs in 19 bits (median) or 31 bits (99th percentile).
Images of different people differ in at least 55 bits (5.8 million pairs of 3,417 aligned faces)."""
HASH_BITS, HASH_BYTES = 255, 32
_SIDE, _COEFFICIENTS = 32, 16
# Coefficients up to this value do not count as positive: JPEG changes small ones at random.
_NOISE = 30.0
# Two images are compared if they agree in all bits of at least one of these 40 random subsets, each
# of 20 bits.  A pair with 27 different bits is missed with a probability of 1 %.  If images are
# scaled by 2 %, 95 % of the copies differ from their original in at most 27 bits.
_SUBSETS, _SUBSET_BITS = 40, 20
# For each subset, an image is compared with at most this number of the later images whose bits in
# the subset are the same.
_MAX_LAG = 2000
_CHUNK_PAIRS = 1 << 18
_BIT_COUNTS = np.array([bin(n).count("1") for n in range(1 << 16)], np.uint8)


def hash_images(pixels: np.ndarray) -> np.ndarray:
    """Return the perceptual hash of each image, uint8 (B, 32).

    ``pixels`` are RGB, uint8 (B, H, W, 3).
    """
    small = np.empty((len(pixels), _SIDE, _SIDE), np.float32)
    for image, out in zip(pixels, small, strict=True):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        out[:] = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    place = np.arange(_SIDE)
    transform = np.cos(
        np.pi / (2 * _SIDE) * (2 * place + 1) * np.arange(_COEFFICIENTS)[:, None]
    ).astype(np.float32)
    coefficients = transform @ small @ transform.T
    bits = (coefficients > _NOISE).reshape(len(pixels), -1)
    bits[:, 0] = False  # the coefficient of the mean
    return np.packbits(bits, axis=1)


def find_near_duplicates(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the images that look the same as an image before them.

    ``hashes`` are the hashes of N images, uint8 (N, 32).

    Outputs
    -------
    Three int64 arrays (M,): the rows of these images, sorted; for each of them, the row of the most
    similar image before it; and the number of bits in which the two hashes differ.
    """
    earlier = _first_rows(hashes)
    best = np.zeros(len(hashes), np.int64)
    # Only the first image of each hash is compared: a thousand equal images cost as much as one.
    unique = np.flatnonzero(earlier == np.arange(len(hashes)))
    best[unique], nearest = _find_nearest(hashes[unique])
    earlier[unique] = unique[nearest]
    rows = np.flatnonzero(best <= MAX_DISTANCE_BITS)
    return rows, earlier[rows], best[rows]


def _first_rows(hashes: np.ndarray) -> np.ndarray:
    """Return for each row the index of the first row with the same hash, int64 (N,)."""
    words = np.ascontiguousarray(hashes).view(np.uint64)
    order = np.lexsort(words.T)  # stable: equal hashes keep the order of their rows
    is_new = np.ones(len(order), bool)
    is_new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[is_new][np.cumsum(is_new) - 1]
    return first


def _find_nearest(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find for each row the most similar earlier row.

    ``hashes`` are N hashes, uint8 (N, 32), of which no two are equal.

    Outputs
    -------
    Two int64 arrays (N,): the number of bits in which a row and its most similar earlier row
    differ, and the index of that earlier row.  For a row without a similar earlier row, the number
    is MAX_DISTANCE_BITS + 1 and the index is 0.
    """
    generator = np.random.default_rng(0)
    best = np.full(len(hashes), MAX_DISTANCE_BITS + 1, np.int64)
    earlier = np.zeros(len(hashes), np.int64)
    for _ in range(_SUBSETS if len(hashes) > 1 else 0):
        subset = 1 + generator.choice(HASH_BITS, _SUBSET_BITS, replace=False)
        for first, second in _candidates(_subset_keys(hashes, subset)):
            before, after = np.minimum(first, second), np.maximum(first, second)
            distance = _distances(hashes, before, after)
            # Assign the pairs in descending order of distance: the last one, with the smallest
            # distance, stays.
            order = np.lexsort((-before, -distance))
            order = order[distance[order] < best[after[order]]]
            best[after[order]], earlier[after[order]] = distance[order], before[order]
    return best, earlier


def _subset_keys(hashes: np.ndarray, subset: np.ndarray) -> np.ndarray:
    """Return the bits at the positions ``subset`` of each hash as one number, int64 (N,)."""
    keys = np.zeros(len(hashes), np.int64)
    for bit in subset.tolist():
        keys = keys << 1 | (hashes[:, bit // 8] >> (7 - bit % 8) & 1)
    return keys


def _candidates(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of rows with equal keys, as two arrays of rows."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    places = np.arange(len(keys))
    for lag in range(1, min(_MAX_LAG, len(keys) - 1) + 1):
        places = places[places < len(keys) - lag]
        places = places[keys[places] == keys[places + lag]]
        if not len(places):
            return
        for start in range(0, len(places), _CHUNK_PAIRS):
            part = places[start : start + _CHUNK_PAIRS]
            yield order[part], order[part + lag]


def _distances(hashes: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the number of bits in which the two hashes of each pair differ, int64 (n,)."""
    different = (hashes[first] ^ hashes[second]).view(np.uint16)
    return _BIT_COUNTS[different].sum(axis=1, dtype=np.int64)
