# SPDX-License-Identifier: Apache-2.0
"""Plots: both panels share one scale, and the sheet shows the test panel of each loss."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tools.gallery.plots import (
    NAME,
    PANEL,
    SHEET_COLUMNS,
    SIZE,
    SMALL,
    TITLE,
    colours,
    draw,
    sheet,
    stack_on_circle,
)


def test_the_sheet_shows_the_right_panel_of_each_plot():
    red, blue = np.array([0, 0, 255], np.uint8), np.array([255, 0, 0], np.uint8)
    plots = []
    for number in range(8):
        image = np.full((SIZE[1], SIZE[0], 3), 255, np.uint8)
        image[TITLE:, :PANEL] = red
        image[TITLE:, -PANEL:] = blue if number % 2 else 0
        plots.append((f"loss {number}", cv2.imencode(".png", image)[1].tobytes()))
    canvas = cv2.imdecode(np.frombuffer(sheet(plots), np.uint8), cv2.IMREAD_COLOR)
    assert canvas.shape == (2 * (NAME + SMALL), SHEET_COLUMNS * SMALL, 3)
    for number in range(8):
        row, column = divmod(number, SHEET_COLUMNS)
        pixel = canvas[row * (NAME + SMALL) + NAME + SMALL // 2, column * SMALL + SMALL // 2]
        assert np.abs(pixel.astype(int) - (blue if number % 2 else 0)).max() < 12
    assert canvas[-SMALL // 2, -SMALL // 2].min() > 240  # no ninth loss


def test_points_that_share_a_direction_are_stacked():
    points = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [-1.0, -0.2]])
    stacked = stack_on_circle(points, np.array([1, 0, 1, 3]))
    lengths = np.linalg.norm(stacked, axis=1)
    assert np.allclose(lengths, [1.25, 1.0, 1.5, 1.0])  # the 0 lies under the 1s
    assert np.allclose(stacked[:3, 0], 0)


def test_axes_are_equal_and_y_points_upwards():
    points = np.random.default_rng(1).uniform([-2.0, -1.0], [2.0, 1.0], (3000, 2))
    labels = (points[:, 1] > 0).astype(int)
    halves = [("train", points, labels), ("test", points / 2, labels)]
    png = np.frombuffer(draw("a title", "settings", halves, circle=False, seed=1), np.uint8)
    image = cv2.imdecode(png, cv2.IMREAD_COLOR)[TITLE:]
    extents = []
    for panel in (image[:, :PANEL], image[:, -PANEL:]):
        rows, columns = zip(*(np.nonzero((panel == c).all(axis=2)) for c in colours()[:2]))
        assert np.median(rows[1]) < PANEL / 2 < np.median(rows[0])
        extents.append((np.ptp(np.concatenate(columns)), np.ptp(np.concatenate(rows))))
    (width, height), (small_width, small_height) = extents
    assert width == pytest.approx(2 * height, rel=0.03)
    # One scale for both panels.
    assert (small_width, small_height) == pytest.approx((width / 2, height / 2), rel=0.03)
