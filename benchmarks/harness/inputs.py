# SPDX-License-Identifier: Apache-2.0
"""Seeded random inputs, the same for every candidate and library.  Needs NumPy only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

LR, MOMENTUM, WEIGHT_DECAY = 1e-6, 0.9, 5e-4
"""The learning rate is so low that the loss stays constant: every step does the same work."""

MARGIN, SCALE = 0.5, 64.0
CENTRE_STD = 0.01
MEAN, STD = 127.5, 128.0
"""Copies of pipeline.decode.dali's constants for interpreters that cannot import DALI."""

MAX_IMAGES = 20_000
"""Largest number of images that a benchmark keeps in memory or writes to a file."""

CHUNK_VALUES = 2**20


def centres(num_classes: int, embedding_size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield class centres in chunks, (rows, float32 values), to avoid a second full copy."""
    random = np.random.default_rng(0)
    chunk_rows = max(1, CHUNK_VALUES // embedding_size)
    for start in range(0, num_classes, chunk_rows):
        rows = slice(start, min(start + chunk_rows, num_classes))
        shape = (rows.stop - start, embedding_size)
        yield rows, CENTRE_STD * random.standard_normal(shape, dtype=np.float32)


def embeddings(batch: int, embedding_size: int) -> np.ndarray:
    """Return unnormalised embeddings, (B, E) float32."""
    return np.random.default_rng(1).standard_normal((batch, embedding_size), dtype=np.float32)


def labels(batch: int, num_classes: int) -> np.ndarray:
    """Return class labels, (B,) int64."""
    return np.random.default_rng(2).integers(0, num_classes, batch)


def images(batch: int, size: int) -> np.ndarray:
    """Return images with values from -1 to 1, (B, 3, size, size) float32."""
    shape = (batch, 3, size, size)
    return 2 * np.random.default_rng(3).random(shape, dtype=np.float32) - 1


def features(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return a feature map and the gradient of an output of the same shape, both float32."""
    random = np.random.default_rng(4)
    first, second = (random.standard_normal(shape, dtype=np.float32) for _ in range(2))
    return first, second
