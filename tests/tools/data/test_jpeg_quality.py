# SPDX-License-Identifier: Apache-2.0
"""Quality and chroma sampling of JPEGs that OpenCV encodes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tools.data.image_fitting import SAMPLINGS
from tools.data.jpeg_quality import chroma_sampling, estimate_quality

PIXELS = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize("quality", [10, 50, 75, 95, 100])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_options_of_the_encoder_are_found(quality, sampling):
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]]
    jpeg = cv2.imencode(".jpg", PIXELS, options)[1].tobytes()
    assert (estimate_quality(jpeg), chroma_sampling(jpeg)) == (quality, sampling)


def test_grey_jpegs_and_other_formats_are_told_apart():
    assert chroma_sampling(cv2.imencode(".jpg", PIXELS[..., 0])[1].tobytes()) == "grey"
    png = cv2.imencode(".png", PIXELS)[1].tobytes()
    assert chroma_sampling(png) == "" and estimate_quality(png) is None
