# SPDX-License-Identifier: Apache-2.0
"""Check JPEGs for truncation, decode images, and apply their Exif orientation.

Every decoder of training images and verification pairs applies the Exif orientation exactly as
``mx.image.imdecode`` does.  For photographs, `decode_upright` follows the orientation in more
cases.  DALI's decoders, on CPUs and GPUs, ignore Exif.  If the Exif orientation of an image asks
for a rotation or a flip, DALI therefore gets an upright copy of the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import cv2

if TYPE_CHECKING:
    import numpy as np

END_OF_IMAGE = b"\xff\xd9"
# Matches a JPEG marker and captures the marker's code.  Fill bytes, stuffed zeros and restart
# markers do not match, because they also occur inside entropy-coded data.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_WITHOUT_LENGTH_CODES = (0x01, 0xD8)
_HEADER_END_CODES = (0xD8, 0xD9, 0xDA)
_MAX_WEBP_CHUNKS = 1000
_APP1_CODE, _EXIF_PREFIX, _ORIENTATION_TAG = 0xE1, b"Exif\0\0", 0x0112


def has_end(image: np.ndarray) -> bool:
    """Return whether a JPEG has an end-of-image marker; a JPEG without one is truncated.

    Further bytes may follow the marker.  The result is always True for other image formats, because
    their decoders detect truncation.
    """
    if image[-2:].tobytes() == END_OF_IMAGE:
        return True
    data = image.tobytes()
    if data[:2] != b"\xff\xd8" or data.rstrip(b"\0").endswith(END_OF_IMAGE):
        return True
    return any(code == END_OF_IMAGE[1] for code, _ in segments(data))


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each JPEG marker except the first as a pair (code, offset of the byte after the code).

    The length of the marker's segment is stored at that offset, as a big-endian 16-bit number of
    bytes.  The length includes its own two bytes, and the content of the segment follows it.  The
    search skips markers inside a segment, because an embedded thumbnail has markers too.
    """
    at = 2
    while found := _MARKER.search(data, at):
        code, at = found[1][0], found.end()
        yield code, at
        if code not in _WITHOUT_LENGTH_CODES:
            at += int.from_bytes(data[at : at + 2], "big")


def may_turn(image: np.ndarray) -> bool:
    """Return whether OpenCV rotates or flips an image because of an Exif orientation of 2 to 8.

    If the Exif data are damaged, the result may be True although OpenCV leaves the image unchanged.
    The C++ function ``may_turn`` in ops/native/jpeg/jpeg_segments.h implements the same rules and
    explains them in more detail.

    Parameters
    ----------
    image
        Bytes of an encoded image, uint8 (n,).
    """
    return _uses_exif(image) and has_turning_exif(image.tobytes())


def has_turning_exif(data: bytes) -> bool:
    """Return whether the Exif data of a JPEG ask for a rotation or a flip.

    In contrast to ``may_turn``, the result may also be True for a JPEG that begins with a JFIF
    segment.  Programs that prepare camera images apply Exif even after a JFIF segment.

    Parameters
    ----------
    data
        Bytes of an encoded image.
    """
    at = 2
    while found := _MARKER.search(data, at):
        code, at = found[1][0], found.end()
        if code in _HEADER_END_CODES:
            return False
        if code in _WITHOUT_LENGTH_CODES:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if at + max(length, 2) > len(data):
            return False
        if length < 2:  # invalid length: libjpeg skips these 2 bytes
            at += 2
        elif code == _APP1_CODE:
            return _exif_turns(data[at + 2 : at + length][len(_EXIF_PREFIX) :])
        else:
            at += length
    return False


def decode(image: np.ndarray) -> np.ndarray | None:
    """Decode an image to upright BGR pixels, uint8 (H, W, 3); return None if decoding fails."""
    flags = cv2.IMREAD_COLOR
    if not _uses_exif(image):
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        return cv2.imdecode(image, flags)
    except cv2.error:
        return None


def decode_upright(image: np.ndarray) -> np.ndarray | None:
    """Decode an image to BGR pixels, uint8 (H, W, 3), and always follow its Exif orientation.

    Unlike ``decode``, this function also follows the orientation of PNG, TIFF and WebP, and of a
    JPEG that begins with a JFIF segment.  Return None if decoding fails.
    """
    is_webp = image[:4].tobytes() == b"RIFF"  # OpenCV 4.11 ignores Exif data in WebP
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if is_webp else 0)
    try:
        pixels = cv2.imdecode(image, flags)
    except cv2.error:
        return None
    return _turn(pixels, _webp_orientation(image.tobytes())) if is_webp else pixels


def _webp_orientation(data: bytes) -> int:
    """Return the Exif orientation of a WebP file, 1 to 8; 1 if the file states none."""
    at = 12
    for _ in range(_MAX_WEBP_CHUNKS):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            content = data[at + 8 : at + 8 + size].removeprefix(_EXIF_PREFIX)
            orientation = _exif_orientation(content)
            return orientation if 1 <= orientation <= 8 else 1
        at += 8 + size + size % 2
    return 1


def _turn(pixels: np.ndarray | None, orientation: int) -> np.ndarray | None:
    """Make pixels (H, W, 3) upright; ``orientation`` is their Exif orientation, 1 to 8."""
    if pixels is None or orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)  # the codes of cv2.flip
    return pixels if flip is None else cv2.flip(pixels, flip)


def upright(image: np.ndarray) -> np.ndarray | None:
    """Re-encode an image as upright BMP without Exif, uint8 (n,); return None if decoding fails."""
    pixels = decode(image)
    return None if pixels is None else cv2.imencode(".bmp", pixels)[1]


def _uses_exif(image: np.ndarray) -> bool:
    """Return whether OpenCV must apply an image's Exif orientation.

    The result is True for JPEGs that do not begin with a JFIF segment.  For JPEGs that begin with a
    JFIF segment, ``mx.image.imdecode`` makes OpenCV ignore Exif.
    """
    head = image[:11].tobytes()
    return head[:3] == b"\xff\xd8\xff" and not (head[3:4] == b"\xe0" and head[6:] == b"JFIF\0")


def _exif_turns(data: bytes) -> bool:
    """Return whether the Exif orientation in ``data`` rotates or flips the image (2 to 8).

    ``data`` has the same meaning as in ``_exif_orientation``.
    """
    return 2 <= _exif_orientation(data) <= 8


def _exif_orientation(data: bytes) -> int:
    """Return the orientation number in Exif data; 1 if the data contain none.

    ``data`` starts at the byte order mark ("II" or "MM") of the Exif content.  Only the first image
    file directory (IFD0) is searched.  Like OpenCV, this function ignores the data type of the
    orientation entry.
    """
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"

    def number(at: int, size: int = 2) -> int:
        return int.from_bytes(data[at : at + size], order) if at + size <= len(data) else -1

    if number(2) != 42 or len(data) < 8:
        return 1
    start = number(4, 4)
    for at in range(start + 2, min(start + 2 + 12 * number(start), len(data) - 9), 12):
        if number(at) == _ORIENTATION_TAG:
            return number(at + 8)
    return 1
