# SPDX-License-Identifier: Apache-2.0
"""One fixed random batch: training on it measures the speed of the compute without a loader."""

from __future__ import annotations

import numpy as np


def synthetic_batch(
    batch_size: int, num_classes: int, image_size: tuple[int, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return image (B, 3, H, W) float32, uniform in [-1, 1), and label (B,) float32."""
    generator = np.random.default_rng(seed)
    image = generator.uniform(-1, 1, (batch_size, 3, *image_size)).astype(np.float32)
    return image, generator.integers(0, num_classes, batch_size).astype(np.float32)
