# SPDX-License-Identifier: Apache-2.0
"""Contact sheet: one image that shows many small images in rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

TILE_PX, GAP_PX, COLUMNS, MAX_TILES = 112, 4, 12, 144
_TITLE_HEIGHT_PX, _BACKGROUND, _INK = 24, 255, (0, 0, 0)


def choose_tiles(count: int) -> list[int]:
    """Choose at most MAX_TILES of ``count`` images, evenly spaced; return their indices."""
    if count <= MAX_TILES:
        return list(range(count))
    return np.linspace(0, count - 1, MAX_TILES).round().astype(int).tolist()


def draw_contact_sheet(
    title: str,
    tiles: Sequence[int],
    read: Callable[[int], np.ndarray | None],
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> bytes:
    """Return a contact sheet as PNG.

    Parameters
    ----------
    title
        Text of the first line, in ASCII.
    tiles
        Index of the image of each tile, for ``read``.
    read
        Function that returns the BGR pixels of the image with a given index, uint8 (H, W, 3), or
        None if the image cannot be read.  The tile of such an image stays empty.
    colours
        BGR colour of the frame around each tile; None: the tiles have no frames.
    """
    columns = min(COLUMNS, max(1, len(tiles)))
    rows = -(-len(tiles) // columns)
    step = TILE_PX + GAP_PX
    width = max(columns * step + GAP_PX, 10 * len(title))
    sheet = np.full((_TITLE_HEIGHT_PX + rows * step + GAP_PX, width, 3), _BACKGROUND, np.uint8)
    cv2.putText(sheet, title, (GAP_PX, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _INK, 1, cv2.LINE_AA)
    for place, number in enumerate(tiles):
        pixels = read(number)
        if pixels is None:
            continue
        scale = TILE_PX / max(pixels.shape[:2])
        size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        tile = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        top = _TITLE_HEIGHT_PX + place // columns * step
        left = GAP_PX + place % columns * step
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        if colours is not None:
            corners = (left - 2, top - 2), (left + TILE_PX + 1, top + TILE_PX + 1)
            cv2.rectangle(sheet, *corners, colours[place], 2)
    return cv2.imencode(".png", sheet)[1].tobytes()
