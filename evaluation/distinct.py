# SPDX-License-Identifier: Apache-2.0
"""Find the distinct images of a verification set: often an image is in several pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from evaluation.pairs import Image


def find_distinct(images: Sequence[Image]) -> tuple[list[int], np.ndarray]:
    """Find the distinct images of a sequence: each image that equals no earlier image.

    Encoded bytes and the same bytes in a uint8 array count as one image.

    Outputs
    -------
    first
        Index of the first occurrence of each of the D distinct images, in ascending order.
    numbers
        For each image, the position in ``first`` of the equal distinct image, int (len(images),):
        ``images[first[numbers[i]]]`` equals ``images[i]``.
    """
    found: dict[Hashable, int] = {}
    first: list[int] = []
    numbers = np.empty(len(images), dtype=np.int64)
    for index, image in enumerate(images):
        number = found.setdefault(_key(image), len(first))
        if number == len(first):
            first.append(index)
        numbers[index] = number
    return first, numbers


def _key(image: Image) -> Hashable:
    """Return a key that two images share if and only if the images are equal."""
    if isinstance(image, bytes):
        return 1, hashlib.sha256(image).digest()
    shape = image.shape if image.ndim == 3 else 1
    return shape, hashlib.sha256(image.tobytes()).digest()
