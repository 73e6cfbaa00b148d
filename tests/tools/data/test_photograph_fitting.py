# SPDX-License-Identifier: Apache-2.0
"""JPEGs that a set stores for photographs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from alignment.aligner import FaceRules
from alignment.plan import AlignmentPlan
from tests.photographs import draw_photograph, encode
from tests.tools.data.sets import decode
from tools.data.decoder_warnings import DecoderWarnings
from tools.data.image_fitting import ALIGNED, CENTRED, ImageFormat, UnfitImageError
from tools.data.photograph_fitting import PhotographFitter


@pytest.fixture
def warnings():
    with DecoderWarnings() as active:
        yield active


def fitter(warnings, **rules) -> PhotographFitter:
    aligner = AlignmentPlan(rules=FaceRules(**rules)).open_aligner((112, 96))
    return PhotographFitter(aligner, ImageFormat(112, 96, quality=98, sampling="4:4:4"), warnings)


def test_the_jpeg_is_the_aligned_face_in_the_colours_of_the_photograph(warnings):
    pixels, points = draw_photograph(0, 0)
    jpeg, change = fitter(warnings).fit(encode(pixels, ".png"), "a.png", points)
    aligner = AlignmentPlan().open_aligner((112, 96))
    expected = aligner.align("a.png", cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), points).pixels
    assert change == ALIGNED
    assert np.abs(decode(jpeg).astype(int) - expected[..., ::-1]).mean() < 2


def test_a_rejected_photograph_has_a_reason_or_gives_its_centre(warnings):
    pixels, points = draw_photograph(0, 0)
    with pytest.raises(UnfitImageError, match="cannot be aligned, got a photograph with a face be"):
        fitter(warnings, min_face_px=500).fit(encode(pixels), "a.jpg", points)
    with pytest.raises(UnfitImageError, match="got a photograph without points"):
        fitter(warnings).fit(encode(pixels), "a.jpg", None)
    assert fitter(warnings, centre=True).fit(encode(pixels), "a.jpg", None).change == CENTRED
    with pytest.raises(UnfitImageError, match="is no image"):
        fitter(warnings, centre=True).fit(b"no image", "a.jpg", None)
