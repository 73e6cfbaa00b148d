# SPDX-License-Identifier: Apache-2.0
"""Read the size of an encoded image from its header, before anything decodes the image.

A decoder allocates memory for the size that the header states.  A small file can state an enormous
size, so every reader of images compares the stated size with the expected size first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from encoded_images import segments

__all__ = ["JpegFrame", "has_size", "jpeg_frame", "stored_size"]

# JPEG markers of frame headers: all of C0 to CF except DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
_MAX_TIFF_ENTRIES = 4096
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
_TIFF_TYPES = {3: 2, 4: 4}  # number of bytes of the types SHORT and LONG
# Blanks and comments separate the numbers of a PNM header.
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]{0,200}\n){1,99}([0-9]{1,9})\s(?:\s|#[^\n]{0,200}\n){0,99}"
                  rb"([0-9]{1,9})\s")  # fmt: skip
_J2K_SIZE = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream and of its segment SIZ


def stored_size(image: bytes) -> tuple[int, int] | None:
    """Return the (height, width) in pixels that the header of an encoded image states.

    An Exif orientation, which may exchange height and width, is not applied.  The formats are JPEG,
    PNG, BMP, WebP, TIFF, PNM and JPEG 2000.  None: the image has another format, or its header
    states no size.

    Parameters
    ----------
    image
        Bytes of the image, or at least those of its header.
    """
    for start, read in _READERS:
        if image.startswith(start):
            size = read(image)
            return size if size and size[0] > 0 and size[1] > 0 else None
    return None


def has_size(image: bytes, image_size: tuple[int, int]) -> bool:
    """Return whether the header of an image states ``image_size``, (height, width) in pixels.

    The result is also True if the header states height and width in exchanged order.
    """
    size = stored_size(image)
    return size is not None and (size == tuple(image_size) or size == tuple(image_size)[::-1])


class JpegFrame(NamedTuple):
    """Frame header of a JPEG (ITU-T T.81, B.2.2)."""

    code: int
    """Second byte of the marker: 0xC0 baseline, 0xC1 sequential, 0xC2 progressive, ..."""
    bits: int
    """Number of bits per sample."""
    height: int
    width: int
    sampling: tuple[tuple[int, int], ...]
    """Horizontal and vertical sampling factor of each component."""


def jpeg_frame(image: bytes) -> JpegFrame | None:
    """Return the frame header of a JPEG; None if the image is no JPEG or has no complete header.

    Parameters
    ----------
    image
        Bytes of the image, or at least those of its header.
    """
    if not image.startswith(b"\xff\xd8\xff"):
        return None
    for code, at in segments(image):
        if code == _START_OF_SCAN:
            return None
        if code in _FRAMES:
            header = image[at + 2 : at + 8]
            if len(header) < 6:
                return None
            components = image[at + 8 : at + 8 + 3 * header[5]]
            if len(components) < 3 * header[5]:
                return None
            factors = tuple((byte >> 4, byte & 15) for byte in components[1::3])
            height, width = _number(header, 1, 2), _number(header, 3, 2)
            return JpegFrame(code, header[0], height, width, factors)
    return None


def _jpeg(image: bytes) -> tuple[int, int] | None:
    for code, at in segments(image):
        if code in _FRAMES:
            return _number(image, at + 3, 2), _number(image, at + 5, 2)
        if code == _START_OF_SCAN:
            return None
    return None


def _png(image: bytes) -> tuple[int, int] | None:
    return (_number(image, 20, 4), _number(image, 16, 4)) if image[12:16] == b"IHDR" else None


def _bmp(image: bytes) -> tuple[int, int]:
    if _number(image, 14, 4, "little") == 12:  # the BMP header of OS/2
        return _number(image, 20, 2, "little"), _number(image, 18, 2, "little")
    width, height = (
        int.from_bytes(image[at : at + 4], "little", signed=True) for at in (18, 22)
    )  # a negative height means that the rows are stored from top to bottom
    return abs(height), abs(width)


def _webp(image: bytes) -> tuple[int, int] | None:
    kind = image[8:16]
    if kind == b"WEBPVP8X":
        return _number(image, 27, 3, "little") + 1, _number(image, 24, 3, "little") + 1
    if kind == b"WEBPVP8L":
        bits = _number(image, 21, 4, "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"WEBPVP8 ":
        return _number(image, 28, 2, "little") & 0x3FFF, _number(image, 26, 2, "little") & 0x3FFF
    return None


def _tiff(image: bytes) -> tuple[int, int] | None:
    order = "little" if image.startswith(b"II") else "big"
    start = _number(image, 4, 4, order)
    found: dict[int, int] = {}
    for at in range(start + 2, start + 2 + 12 * _number(image, start, 2, order), 12):
        tag, size = _number(image, at, 2, order), _TIFF_TYPES.get(_number(image, at + 2, 2, order))
        if size and tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            found[tag] = max(found.get(tag, 0), _number(image, at + 8, size, order))
        if at > len(image) or at > start + 12 * _MAX_TIFF_ENTRIES:
            break
    return (found[_TIFF_HEIGHT], found[_TIFF_WIDTH]) if len(found) == 2 else None


def _pnm(image: bytes) -> tuple[int, int] | None:
    match = _PNM.match(image)
    return (int(match[2]), int(match[1])) if match else None


def _jpeg_2000(image: bytes) -> tuple[int, int] | None:
    at = image.find(_J2K_SIZE)
    if at < 0 or image.find(_J2K_SIZE, at + 1) >= 0:  # two sizes: a decoder may use either
        return None
    return _number(image, at + 12, 4), _number(image, at + 8, 4)


def _number(image: bytes, at: int, size: int, order: str = "big") -> int:
    """Return an unsigned number of ``size`` bytes; 0 if the image ends within the number."""
    piece = image[at : at + size]
    if len(piece) < size:
        return 0
    return int.from_bytes(piece, "little" if order == "little" else "big")


_READERS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[bytes], tuple[int, int] | None]], ...]
_READERS = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    ((b"II*\0", b"MM\0*"), _tiff),
    (tuple(b"P%d" % kind for kind in range(1, 7)), _pnm),
    ((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"), _jpeg_2000),
)
