# SPDX-License-Identifier: Apache-2.0
"""Images of a verification set: pixels, encoded arrays, damage."""

from __future__ import annotations

import cv2
import numpy as np

from evaluation.pairs import Pairs
from tools.data.decoder_warnings import DecoderWarnings
from tools.data.set_findings import check_images, decode_tile, find_findings


def test_pixels_and_encoded_arrays_are_images_too(make_face):
    jpeg = make_face(0, 0)
    array = np.frombuffer(jpeg, np.uint8)
    pixels = cv2.cvtColor(cv2.imdecode(array, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    pairs = Pairs([jpeg, array, pixels, make_face(1, 0)], np.array([True, False]))
    calls = []
    with DecoderWarnings() as warnings:
        images = check_images(pairs, warnings, lambda *values: calls.append(values))
    assert images.sizes == [(112, 112)] * 3 and images.damage == [""] * 3
    assert images.numbers.tolist() == [0, 0, 1, 2]
    assert calls[-1] == ("checked", 3, 3)
    findings = list(find_findings(pairs, images))
    assert findings[0] == "pair 0 of one person has the same image twice"
    np.testing.assert_array_equal(decode_tile(pixels), decode_tile(jpeg))


def test_a_set_of_damaged_images_alone_gives_findings():
    pairs = Pairs([b"x"] * 4, np.array([True, False]))
    with DecoderWarnings() as warnings:
        images = check_images(pairs, warnings, lambda *_: None)
    findings = list(find_findings(pairs, images))
    assert findings[0] == "image 0 of pair 0 is no image, got 1 bytes"
    assert decode_tile(b"x") is None
