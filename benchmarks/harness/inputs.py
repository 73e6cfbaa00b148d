# SPDX-License-Identifier: Apache-2.0
"""Create random inputs from fixed seeds, equal for every implementation and library.

This module needs NumPy only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

LR, MOMENTUM, WEIGHT_DECAY = 1e-6, 0.9, 5e-4
"""Settings of SGD.  The learning rate is so low that the loss stays constant in all steps."""

MARGIN, SCALE = 0.5, 64.0
MARGINS = {"arcface": {"m2": MARGIN}, "cosface": {"m3": 0.4}}
"""Keyword arguments of our heads, keyed by the name of the head; 0.4 is the margin in InsightFace's
configurations for WebFace."""
CENTRE_STD = 0.01
MEAN, STD = 127.5, 128.0
"""Mean and divisor of the normalisation of pixels, equal to those of the module `normalization`."""

MAX_IMAGES = 20_000
"""Largest number of images that a benchmark keeps in memory or writes to a file."""

CHUNK_VALUES = 2**17


def centres(num_classes: int, embedding_size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the class centres in chunks, as pairs (slice of rows, float32 values of these rows).

    With chunks, the full matrix is never held twice in memory.  All chunks share one buffer: copy
    the values before the next iteration.
    """
    random = np.random.default_rng(0)
    chunk_rows = min(num_classes, max(1, CHUNK_VALUES // embedding_size))
    buffer = np.empty((chunk_rows, embedding_size), np.float32)
    for start in range(0, num_classes, chunk_rows):
        rows = slice(start, min(start + chunk_rows, num_classes))
        values = buffer[: rows.stop - start]
        random.standard_normal(dtype=np.float32, out=values)
        values *= np.float32(CENTRE_STD)
        yield rows, values


def embeddings(batch: int, embedding_size: int) -> np.ndarray:
    """Return random embeddings, not normalised, as float32 of shape (batch, embedding_size)."""
    return np.random.default_rng(1).standard_normal((batch, embedding_size), dtype=np.float32)


def labels(batch: int, num_classes: int) -> np.ndarray:
    """Return random class labels below ``num_classes`` as int64 of shape (batch,)."""
    return np.random.default_rng(2).integers(0, num_classes, batch)


def images(batch: int, size: int) -> np.ndarray:
    """Return random images, values from -1 to 1, as float32 of shape (batch, 3, size, size)."""
    shape = (batch, 3, size, size)
    return 2 * np.random.default_rng(3).random(shape, dtype=np.float32) - 1


def features(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return a random feature map and a random output gradient, both float32 of shape `shape`."""
    random = np.random.default_rng(4)
    first, second = (random.standard_normal(shape, dtype=np.float32) for _ in range(2))
    return first, second
