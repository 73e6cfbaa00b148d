# SPDX-License-Identifier: Apache-2.0
"""Estimate the quality setting of a JPEG, and name its chroma sampling."""

from __future__ import annotations

import functools

import numpy as np

from encoded_images import segments
from image_headers import jpeg_frame

_DQT, _SOS = 0xDB, 0xDA
# Quantization table of luminance of ITU-T T.81, table K.1, which libjpeg scales.
_LUMINANCE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
])  # fmt: skip
_NAMES = {
    ((1, 1),): "grey",
    ((1, 1), (1, 1), (1, 1)): "4:4:4",
    ((2, 1), (1, 1), (1, 1)): "4:2:2",
    ((1, 2), (1, 1), (1, 1)): "4:4:0",
    ((2, 2), (1, 1), (1, 1)): "4:2:0",
    ((4, 1), (1, 1), (1, 1)): "4:1:1",
}


def chroma_sampling(image: bytes) -> str:
    """Return the chroma sampling of a JPEG, such as "4:2:0" or "grey"; "other" if it has no name.

    The result is "" if the image is no JPEG.
    """
    frame = jpeg_frame(image)
    if frame is None:
        return ""
    if len(frame.sampling) == 1:  # the factors of a single component have no effect
        return "grey"
    return _NAMES.get(frame.sampling, "other")


def estimate_quality(image: bytes) -> int | None:
    """Return the quality, 1 to 100, at which libjpeg uses the quantization table of a JPEG.

    For the table of another encoder, the result is the quality whose libjpeg table has the closest
    sum of entries.  The result is None if the image is no JPEG or has no complete table.
    """
    if not image.startswith(b"\xff\xd8\xff"):
        return None
    for code, at in segments(image):
        if code == _SOS:
            return None
        if code == _DQT:
            is_wide = image[at + 2 : at + 3] >= b"\x10"
            table = image[at + 3 : at + 3 + (128 if is_wide else 64)]
            if len(table) != (128 if is_wide else 64):
                return None
            values = np.frombuffer(table, dtype=">u2" if is_wide else np.uint8)
            return int(np.abs(_table_sums() - int(values.sum())).argmin()) + 1
    return None


@functools.cache
def _table_sums() -> np.ndarray:
    """Return the sum of libjpeg's luminance table for each quality 1 to 100, int64 (100,)."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((scale[:, None] * _LUMINANCE + 50) // 100, 1, 255).sum(axis=1)
