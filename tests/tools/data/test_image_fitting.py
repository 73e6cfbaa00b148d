# SPDX-License-Identifier: Apache-2.0
"""Fitting of images: the quick check of simple headers agrees with the full check."""

from __future__ import annotations

import numpy as np

from encoded_images import has_turning_exif
from image_headers import is_whole, jpeg_frame
from tests.conftest import face
from tests.tools.data.sets import with_exif
from tools.data import image_fitting
from tools.data.image_fitting import ImageFormat, fits_plainly

WANTED = ImageFormat(112, 112)


def test_a_usual_jpeg_fits_plainly_and_other_ones_are_left_open():
    jpeg = face(1, 1)
    assert fits_plainly(jpeg, WANTED)
    for other in (with_exif(jpeg, 6), jpeg[:-2], face(1, 1, (112, 96)), b"", jpeg[:4]):
        assert not fits_plainly(other, WANTED)


def test_no_damage_of_a_header_passes_the_quick_check_alone():
    generator, jpeg = np.random.default_rng(1), face(1, 1)
    passed = 0
    for _ in range(3000):
        data = bytearray(jpeg)
        data[generator.integers(0, 640)] = generator.integers(0, 256)
        if fits_plainly(bytes(data), WANTED):
            passed += 1
            frame = jpeg_frame(bytes(data))
            assert frame is not None and image_fitting._fits(frame, WANTED)
            assert is_whole(bytes(data)) and not has_turning_exif(bytes(data))
    assert 100 < passed < 3000
