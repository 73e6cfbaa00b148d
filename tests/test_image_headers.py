# SPDX-License-Identifier: Apache-2.0
"""Sizes that the headers of encoded images state, without decoding."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from image_headers import has_size, stored_size

PIXELS = np.random.default_rng(0).integers(0, 255, (45, 67, 3), np.uint8)


def encoded(suffix, pixels=PIXELS, options=()):
    return cv2.imencode(suffix, pixels, list(options))[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".jp2"])
def test_the_size_is_that_of_the_decoded_image(suffix):
    image = encoded(suffix)
    assert stored_size(image) == cv2.imdecode(np.frombuffer(image, np.uint8), 1).shape[:2]
    assert has_size(image, (45, 67)) and has_size(image, (67, 45))
    assert not has_size(image, (45, 68))


def test_lossy_webp_and_progressive_jpeg_state_their_size():
    assert stored_size(encoded(".webp", options=[cv2.IMWRITE_WEBP_QUALITY, 50])) == (45, 67)
    assert stored_size(encoded(".jpg", options=[cv2.IMWRITE_JPEG_PROGRESSIVE, 1])) == (45, 67)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".jp2"])
def test_every_truncated_header_gives_a_size_or_none(suffix):
    image = encoded(suffix)
    for end in range(min(len(image), 700)):
        size = stored_size(image[:end])
        assert size is None or (size[0] > 0 and size[1] > 0)


@pytest.mark.parametrize(
    "image", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda", b"nothing", b"P6\n3", b"GIF89a", b"\0" * 99]
)
def test_other_bytes_have_no_size(image):
    assert stored_size(image) is None and not has_size(image, (45, 67))


def test_an_enormous_size_is_read_as_stated():
    image = bytearray(encoded(".png"))
    image[16:24] = (30_000).to_bytes(4, "big") * 2
    assert stored_size(bytes(image)) == (30_000, 30_000)
