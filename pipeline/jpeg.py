# SPDX-License-Identifier: Apache-2.0
"""Whether a JPEG is whole, without decoding it."""

from __future__ import annotations

import re

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
    at = 2
    while found := _MARKER.search(data, at):  # not inside a segment: a thumbnail ends as well
        code, at = found[1][0], found.end()
        if code == END_OF_IMAGE[1]:
            return True
        if code not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
    return False
