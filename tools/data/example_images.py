# SPDX-License-Identifier: Apache-2.0
"""Write many different small JPEGs quickly, to measure the speed of commands with them."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

_BASES = 64
_SIZE = 112


def write_images(folder: Path, people: int, images: int, other_every: int = 0) -> int:
    """Write JPEGs of 112x112 pixels to one folder per identity; return the number of images.

    The JPEGs show noise and have about the file size of aligned faces, 6 kB.  Each JPEG has its own
    number in a comment, so no two JPEGs have the same bytes.

    Parameters
    ----------
    people
        Number of identities.
    images
        Number of images of each identity.
    other_every
        Every ``other_every``-th image is a PNG of 224x224 pixels; 0: every image is a JPEG.
    """
    generator = np.random.default_rng(1)
    bases = [_draw(generator, _SIZE, ".jpg") for _ in range(_BASES)]
    other = _draw(generator, 2 * _SIZE, ".png")
    for person in range(people):
        target = folder / f"{person:05d}"
        target.mkdir(parents=True)
        for shot in range(images):
            number = person * images + shot
            if other_every and number % other_every == 0:
                (target / f"{shot:04d}.png").write_bytes(other)
                continue
            jpeg = bases[number % _BASES]
            comment = b"\xff\xfe" + struct.pack(">HI", 6, number)
            (target / f"{shot:04d}.jpg").write_bytes(jpeg[:20] + comment + jpeg[20:])
    return people * images


def _draw(generator: np.random.Generator, size: int, suffix: str) -> bytes:
    """Return an encoded image of smooth noise."""
    noise = generator.integers(0, 256, (size, size, 3)).astype(np.float32)
    pixels = 128 + 8 * (cv2.GaussianBlur(noise, (0, 0), 2.5) - 128)
    done, data = cv2.imencode(suffix, np.clip(pixels, 0, 255).astype(np.uint8))
    assert done
    return data.tobytes()
