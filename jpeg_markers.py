# SPDX-License-Identifier: Apache-2.0
"""What the markers of a JPEG say, without decoding it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

END_OF_IMAGE = b"\xff\xd9"
# A marker but for fill bytes, stuffed zeros and restarts, which stand among the codes.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_ALONE = (0x01, 0xD8)  # markers without a length


def has_end(picture: np.ndarray) -> bool:
    """Return whether a JPEG has an end-of-image marker: without one it was cut off.

    Something may follow it.  Pictures of other formats are their decoder's business.
    """
    if picture[-2:].tobytes() == END_OF_IMAGE:
        return True
    data = picture.tobytes()
    if data[:2] != b"\xff\xd8" or data.rstrip(b"\0").endswith(END_OF_IMAGE):
        return True
    return any(code == END_OF_IMAGE[1] for code, _ in segments(data))


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (code, place) of every marker behind the first: where what follows its code begins.

    That is the segment's length, two bytes of the highest first that count themselves, and then
    what is in it.  Markers inside a segment are passed over: a thumbnail has its own.
    """
    at = 2
    while found := _MARKER.search(data, at):
        code, at = found[1][0], found.end()
        yield code, at
        if code not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
