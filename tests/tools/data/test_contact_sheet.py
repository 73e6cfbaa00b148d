# SPDX-License-Identifier: Apache-2.0
"""Contact sheets."""

from __future__ import annotations

import cv2
import numpy as np

from tools.data.contact_sheet import COLUMNS, GAP_PX, MAX_TILES, TILE_PX, choose_tiles
from tools.data.contact_sheet import draw_contact_sheet as draw


def decode(sheet: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)


def test_at_most_a_fixed_number_of_tiles_covers_all_images():
    assert choose_tiles(0) == [] and choose_tiles(3) == [0, 1, 2]
    many = choose_tiles(100_000)
    assert len(many) == MAX_TILES and many[0] == 0 and many[-1] == 99_999
    assert len(set(np.diff(many).tolist())) <= 2


def test_tiles_stand_in_rows_and_keep_their_shape():
    colours = [np.full((60, 30, 3), 10 * number, np.uint8) for number in range(COLUMNS + 1)]
    colours[1] = None
    sheet = decode(draw("title", range(COLUMNS + 1), lambda number: colours[number]))
    step = TILE_PX + GAP_PX
    top = sheet.shape[0] - 2 * step - GAP_PX
    middle = [sheet[top + 50, GAP_PX + column * step + 10].tolist() for column in range(COLUMNS)]
    assert middle[0] == [0] * 3 and middle[1] == [255] * 3 and middle[5] == [50] * 3
    assert sheet[top + step + 50, GAP_PX + 10].tolist() == [10 * COLUMNS] * 3
    assert sheet[top + 50, GAP_PX + TILE_PX - 10].tolist() == [255] * 3  # 30 of 60 pixels wide


def test_frames_have_the_colour_of_their_tile():
    pixels = np.full((112, 112, 3), 128, np.uint8)
    sheet = decode(draw("x", [0, 1], lambda _: pixels, [(0, 160, 0), (0, 0, 220)]))
    found = {tuple(colour) for colour in sheet.reshape(-1, 3).tolist()}
    assert {(0, 160, 0), (0, 0, 220)} <= found


def test_without_tiles_only_the_title_remains():
    assert decode(draw("nothing", [], lambda _: None)).shape[2] == 3
