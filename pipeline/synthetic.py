# SPDX-License-Identifier: Apache-2.0
"""Make one fixed random batch, to measure the speed of training without the cost of a loader."""

from __future__ import annotations

import numpy as np


def synthetic_batch(
    batch_size: int, num_classes: int, image_size: tuple[int, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a random batch as (image, label).

    The image is float32 (B, 3, H, W), uniform in [-1, 1).  The label is float32 (B,) with whole
    numbers from 0 to num_classes - 1.
    """
    generator = np.random.default_rng(seed)
    image = generator.uniform(-1, 1, (batch_size, 3, *image_size)).astype(np.float32)
    return image, generator.integers(0, num_classes, batch_size).astype(np.float32)
