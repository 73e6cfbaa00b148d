# SPDX-License-Identifier: Apache-2.0
"""Read the size of an encoded image and detect a truncated image, both without decoding.

A decoder allocates memory for the size that the header states.  A small file can state an enormous
size, so every reader of images checks the stated size before it decodes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from encoded_images import has_end, segments

__all__ = [
    "JpegFrame",
    "decoded_size",
    "has_size",
    "has_too_many_segments",
    "is_size",
    "is_whole",
    "jpeg_frame",
    "stored_size",
]

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# Name and checksum of IEND, the empty last chunk of a PNG.
_PNG_END = b"IEND\xae\x42\x60\x82"
# JPEG markers of frame headers: all of C0 to CF except DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# JPEG markers of the frame types that libjpeg decodes.
_DECODABLE_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
# Markers of the other known JPEG segments: DHT, DAC, SOS, DQT, DNL, DRI, APP0 to APP15 and COM.
_OTHERS = frozenset((0xC4, 0xCC, _START_OF_SCAN, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE))
_END_OF_IMAGE = 0xD9
# For each APP1 segment, libjpeg searches the list of all earlier ones.  For each scan of a
# progressive image, libjpeg processes all pixels.  So a small file could take hours to decode.
_MAX_SEGMENTS = {_APP1: 1024, _START_OF_SCAN: 100}
_COUNTED_MARKERS = re.compile(b"\xff[" + bytes(_MAX_SEGMENTS) + b"]")
# Number of the Exif orientation tag in both byte orders.
_ORIENTATION = (b"\x01\x12", b"\x12\x01")
_MAX_TIFF_ENTRIES = 4096
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
_TIFF_TYPES = {3: 2, 4: 4}  # number of bytes of the types SHORT and LONG
# Blanks and comments separate the numbers of a PNM header.
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]{0,200}\n){1,99}([0-9]{1,9})\s(?:\s|#[^\n]{0,200}\n){0,99}"
                  rb"([0-9]{1,9})\s")  # fmt: skip
_J2K_SIZE = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream and of its segment SIZ


def stored_size(image: bytes) -> tuple[int, int] | None:
    """Return the (height, width) in pixels that the header of an encoded image states.

    An Exif orientation, which may exchange height and width, is not applied.  The supported formats
    are JPEG, PNG, BMP, WebP, TIFF, PNM and JPEG 2000.  Return None for another format, for a header
    that states no size, and for a JPEG that could take hours to decode because it has more than
    1024 APP1 segments or more than 100 scans.

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
    return size is not None and is_size(size, image_size)


def is_size(size: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Return whether ``size`` is ``image_size``, or has its height and width in exchanged order."""
    return size in (tuple(image_size), tuple(image_size)[::-1])


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
    if not image.startswith(_JPEG):
        return None
    for code, at in _header_segments(image):
        if code in _FRAMES:
            return _read_frame(image, code, at)
    return None


def _read_frame(image: bytes, code: int, at: int) -> JpegFrame | None:
    """Read the frame header whose segment begins at ``at``; return None if it is cut off."""
    header = image[at + 2 : at + 8]
    if len(header) < 6:
        return None
    components = image[at + 8 : at + 8 + 3 * header[5]]
    if len(components) < 3 * header[5]:
        return None
    factors = tuple((byte >> 4, byte & 15) for byte in components[1::3])
    return JpegFrame(code, header[0], *_frame_size(image, at), factors)


def decoded_size(image: bytes) -> tuple[int, int] | None:
    """Read from the header the (height, width) in pixels that the decoded image will have.

    Return None if only decoding can tell the size: the format is not JPEG or PNG, the header is
    damaged or unsupported, or an Exif orientation may exchange height and width.
    """
    if image.startswith(_JPEG):
        return _decoded_jpeg_size(image)
    size = stored_size(image) if image.startswith(_PNG) else None
    return None if size and size[0] != size[1] and b"eXIf" in image else size


def _decoded_jpeg_size(image: bytes) -> tuple[int, int] | None:
    frame: JpegFrame | None = None
    may_turn = False
    for code, at in _header_segments(image):
        if code == _START_OF_SCAN:
            turned = frame is not None and may_turn and frame.height != frame.width
            return None if frame is None or turned else (frame.height, frame.width)
        if code in _DECODABLE_FRAMES and frame is None:
            frame = _read_frame(image, code, at)
            if frame is None or not _is_usual(frame):
                return None
        elif code not in _OTHERS or image[at : at + 2] < b"\0\2":  # a length below 2
            return None
        elif code == _APP1:
            content = image[at + 2 : at + _number(image, at, 2)]
            may_turn |= any(tag in content for tag in _ORIENTATION)
    return None


def _is_usual(frame: JpegFrame) -> bool:
    return frame.bits == 8 and len(frame.sampling) in (1, 3, 4) and frame.height > 0 < frame.width


def is_whole(image: bytes) -> bool:
    """Return True for a JPEG or PNG with an end marker, and for every image of another format."""
    if image.startswith(_PNG):
        return image.endswith(_PNG_END) or _PNG_END in image
    return has_end(np.frombuffer(image, np.uint8))


def _header_segments(image: bytes) -> Iterator[tuple[int, int]]:
    """Yield what `encoded_images.segments` yields for a JPEG, up to the first start of scan."""
    for code, at in segments(image):
        yield code, at
        if code == _START_OF_SCAN:
            return


def _frame_size(image: bytes, at: int) -> tuple[int, int]:
    """Return the (height, width) in a JPEG's frame header; ``at`` is where its segment begins."""
    return _number(image, at + 3, 2), _number(image, at + 5, 2)


def has_too_many_segments(image: bytes) -> bool:
    """Return whether a JPEG could take hours to decode, because of its APP1 segments or scans."""
    if len(_COUNTED_MARKERS.findall(image)) <= min(_MAX_SEGMENTS.values()):
        return False  # The pattern can match bytes that are no marker, but it misses no marker.
    counts = dict.fromkeys(_MAX_SEGMENTS, 0)
    for code, _ in segments(image):
        if code == _END_OF_IMAGE:
            return False
        if code in counts:
            counts[code] += 1
            if counts[code] > _MAX_SEGMENTS[code]:
                return True
    return False


def _jpeg(image: bytes) -> tuple[int, int] | None:
    if has_too_many_segments(image):
        return None
    frames = (at for code, at in _header_segments(image) if code in _FRAMES)
    at = next(frames, None)
    return None if at is None else _frame_size(image, at)


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
    (_JPEG, _jpeg),
    (_PNG, _png),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    ((b"II*\0", b"MM\0*"), _tiff),
    (tuple(b"P%d" % kind for kind in range(1, 7)), _pnm),
    ((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"), _jpeg_2000),
)
