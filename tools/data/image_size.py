# SPDX-License-Identifier: Apache-2.0
"""Option ``--size``: size of the images that a command writes."""

from __future__ import annotations

import re

MAX_SIDE_PX = 4096
_SIZE = re.compile(r"([0-9]{1,5})(?:x([0-9]{1,5}))?")


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width) in pixels for the text "HEIGHTxWIDTH" or the side of a square.

    Raises
    ------
    ValueError
        If the text has another form, or a side is not from 1 to MAX_SIDE_PX.
    """
    found = _SIZE.fullmatch(text)
    height = int(found[1]) if found else 0
    width = int(found[2] or found[1]) if found else 0
    if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
        raise ValueError(
            "--size: must be HEIGHTxWIDTH or the side of a square, with sides from 1 to "
            f"{MAX_SIDE_PX} pixels, got {text!r}; 112 is usual"
        )
    return height, width
