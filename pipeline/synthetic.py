# SPDX-License-Identifier: Apache-2.0
"""Make one random batch, with which training can be timed without the cost of a real loader."""

from __future__ import annotations

import numpy as np


def synthetic_batch(
    batch_size: int, num_classes: int, image_size: tuple[int, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a random batch of B images as a pair of arrays (image, label).

    ``image`` is float32 (B, 3, H, W), uniform in [-1, 1).  ``label`` is float32 (B,) and holds
    whole numbers from 0 to num_classes - 1.
    """
    generator = np.random.default_rng(seed)
    image = generator.uniform(-1, 1, (batch_size, 3, *image_size)).astype(np.float32)
    return image, generator.integers(0, num_classes, batch_size).astype(np.float32)
