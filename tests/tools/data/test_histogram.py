# SPDX-License-Identifier: Apache-2.0
"""Histogram of the number of images per identity."""

from __future__ import annotations

import cv2
import numpy as np

from tools.data.histogram import BAR_COLOUR, MAX_BARS, bin_counts, draw_histogram


def test_bins_hold_every_identity_once():
    counts = np.array([1, 1, 2, 90, 1000])
    starts, heights = bin_counts(counts)
    assert len(starts) <= MAX_BARS and heights.sum() == 5
    assert starts[0] == 1 and heights[0] == 3 and heights[-1] == 1


def test_a_bin_of_one_identity_among_thousands_is_visible():
    png = draw_histogram(np.array([1] * 5000 + [2]), "title")
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    columns = (image == BAR_COLOUR).all(axis=2).any(axis=0)
    assert np.count_nonzero(np.diff(columns.astype(int)) == 1) == 2
