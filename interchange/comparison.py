# SPDX-License-Identifier: Apache-2.0
"""Compare the embeddings of two forms of one network on random images."""

from __future__ import annotations

from collections.abc import Callable

import mxnet as mx
import numpy as np

from interchange.model import InterchangeError, StoredModel
from interchange.stored_net import build_stored_net
from normalization import MEAN, STD

IMAGES = 64
"""Number of random images of a comparison."""
MAX_DIFFERENCE = 1e-4
"""Two embeddings of L2 norm 1 count as equal if no value differs by more than this number."""
BATCH_IMAGES = 16

Embed = Callable[[np.ndarray], np.ndarray]
"""Function from RGB pixels (B, 3, H, W) float32 to embeddings (B, E)."""


def random_pixels(image_size: tuple[int, int], count: int = IMAGES) -> np.ndarray:
    """Return images of random whole numbers from 0 to 255, (count, 3, height, width) float32."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, 3, *image_size)).astype(np.float32)


def model_function(model: StoredModel) -> Embed:
    """Return a function that computes the network of a stored model in MXNet on the CPU."""
    net = build_stored_net(model)
    net.hybridize(static_alloc=True)

    def compute(pixels: np.ndarray) -> np.ndarray:
        with mx.autograd.pause(train_mode=False):
            return net(mx.nd.array((pixels - MEAN) / STD)).asnumpy()

    return compute


def require_equal(first: Embed, second: Embed, image_size: tuple[int, int], where: str) -> float:
    """Compare the embeddings that two functions compute from `IMAGES` random images.

    Returns the largest absolute difference of a component of the normalised embeddings.

    Parameters
    ----------
    where
        Path of the model, for the error message.

    Raises
    ------
    InterchangeError
        If values of the normalised embeddings differ by more than `MAX_DIFFERENCE`, or are not
        finite.
    """
    worst, pixels = 0.0, random_pixels(image_size)
    for start in range(0, IMAGES, BATCH_IMAGES):
        batch = pixels[start : start + BATCH_IMAGES]
        one, two = (_normalised(embed(batch)) for embed in (first, second))
        difference = float(np.abs(one - two).max()) if one.shape == two.shape else np.inf
        if not difference <= MAX_DIFFERENCE:
            raise InterchangeError(
                f"{where}: the converted network must give the same embeddings as the original "
                f"within {MAX_DIFFERENCE:g}, got a difference of {difference:.2g}; check that the "
                "weights are finite (no file was written)"
            )
        worst = max(worst, difference)
    return worst


def _normalised(embeddings: np.ndarray) -> np.ndarray:
    # Suppress warnings: the quotient is NaN for an embedding of length 0, and require_equal refuses
    # NaN.
    with np.errstate(all="ignore"):
        return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
