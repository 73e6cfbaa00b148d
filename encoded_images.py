# SPDX-License-Identifier: Apache-2.0
"""Encoded images: whether one is whole, whether Exif turns it, and its upright pixels.

Exif turns images as in ``mx.image.imdecode``, wherever an image is decoded.  Decoders that know no
Exif (DALI's, on CPUs and GPUs) get an upright copy.  Imports nothing of ours: evaluation and
pipeline share it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import cv2

if TYPE_CHECKING:
    import numpy as np

END_OF_IMAGE = b"\xff\xd9"
# A marker but for fill bytes, stuffed zeros and restarts, which stand among the codes.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_ALONE = (0x01, 0xD8)  # markers without a length
_FRONT_ENDS = (0xD8, 0xD9, 0xDA)
_APP1, _EXIF, _ORIENTATION = 0xE1, b"Exif\0\0", 0x0112


def has_end(image: np.ndarray) -> bool:
    """Return whether a JPEG has an end-of-image marker: without one it was cut off.

    Something may follow it.  Images of other formats are their decoder's business.
    """
    if image[-2:].tobytes() == END_OF_IMAGE:
        return True
    data = image.tobytes()
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


def may_turn(image: np.ndarray) -> bool:
    """Return whether OpenCV may turn an image, for an Exif orientation of 2 to 8.

    Exactly that, except where Exif is damaged: there OpenCV may leave the image as it is.  The twin
    of ``may_turn`` in ops/native/jpeg/jpeg_segments.h, which says more.

    Parameters
    ----------
    image
        The encoded image, uint8 (n,).
    """
    if not _heeds_exif(image):
        return False
    data, at = image.tobytes(), 2
    while found := _MARKER.search(data, at):
        code, at = found[1][0], found.end()
        if code in _FRONT_ENDS:
            return False
        if code in _ALONE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if at + max(length, 2) > len(data):
            return False
        if length < 2:  # libjpeg reads on behind it
            at += 2
        elif code == _APP1:
            return _exif_turns(data[at + 2 : at + length][len(_EXIF) :])
        else:
            at += length
    return False


def decode(image: np.ndarray) -> np.ndarray | None:
    """Return the pixels of an encoded image, BGR, uint8 (H, W, 3), upright; None if it has none."""
    flags = cv2.IMREAD_COLOR
    if not _heeds_exif(image):
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        return cv2.imdecode(image, flags)
    except cv2.error:
        return None


def upright(image: np.ndarray) -> np.ndarray | None:
    """Return the same pixels as an image that no decoder turns, uint8 (n,); None if it has none."""
    pixels = decode(image)
    return None if pixels is None else cv2.imencode(".bmp", pixels)[1]


def _heeds_exif(image: np.ndarray) -> bool:
    """Return whether Exif in an image counts: in JPEGs, but for those that begin with JFIF.

    MXNet takes the size of those out of their frame, and OpenCV turns nothing for it then.
    """
    head = image[:11].tobytes()
    return head[:3] == b"\xff\xd8\xff" and not (head[3:4] == b"\xe0" and head[6:] == b"JFIF\0")


def _exif_turns(data: bytes) -> bool:
    """Return whether the first directory of Exif, from the byte order on, has such an orientation.

    Read as OpenCV does, whatever type the entry names.
    """
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"

    def number(at: int, size: int = 2) -> int:
        return int.from_bytes(data[at : at + size], order) if at + size <= len(data) else -1

    if number(2) != 42 or len(data) < 8:
        return False
    start = number(4, 4)
    for at in range(start + 2, min(start + 2 + 12 * number(start), len(data) - 9), 12):
        if number(at) == _ORIENTATION:
            return 2 <= number(at + 8) <= 8
    return False
