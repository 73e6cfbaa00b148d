# SPDX-License-Identifier: Apache-2.0
"""The same random numbers for every candidate, whatever library it computes with; NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

LR, MOMENTUM, WEIGHT_DECAY = 1e-6, 0.9, 5e-4
"""So small a rate that the loss stays what it was: the last step does the work of the first."""

MARGIN, SCALE = 0.5, 64.0
CENTRE_STD = 0.01
MEAN, STD = 127.5, 128.0
"""As pipeline.decode.dali has them, which other interpreters cannot import; a test compares."""

MAX_IMAGES = 20_000
"""Of a set that is held in memory or written again: JPEGs, pixels, FFCV's file."""

CHUNK = 2**20  # values of a piece


def centres(num_classes: int, embedding_size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield class centres in pieces, (rows, float32 values), so that they are never there twice."""
    random = np.random.default_rng(0)
    some = max(1, CHUNK // embedding_size)
    for start in range(0, num_classes, some):
        rows = slice(start, min(start + some, num_classes))
        shape = (rows.stop - start, embedding_size)
        yield rows, CENTRE_STD * random.standard_normal(shape, dtype=np.float32)


def embeddings(batch: int, embedding_size: int) -> np.ndarray:
    """Return (B, E) float32, not of unit length."""
    return np.random.default_rng(1).standard_normal((batch, embedding_size), dtype=np.float32)


def labels(batch: int, num_classes: int) -> np.ndarray:
    """Return (B,) int64."""
    return np.random.default_rng(2).integers(0, num_classes, batch)


def images(batch: int, size: int) -> np.ndarray:
    """Return (B, 3, size, size) float32, normalised as the loader does: -1 to 1."""
    shape = (batch, 3, size, size)
    return 2 * np.random.default_rng(3).random(shape, dtype=np.float32) - 1


def features(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return a feature map and the gradient of what is made of it, float32."""
    random = np.random.default_rng(4)
    first, second = (random.standard_normal(shape, dtype=np.float32) for _ in range(2))
    return first, second
