# SPDX-License-Identifier: Apache-2.0
"""Read the size of an encoded image and detect a truncated image, both without decoding."""

from __future__ import annotations

import numpy as np

from encoded_images import has_end, segments

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# Name and checksum of IEND, the empty last chunk of a PNG.
_PNG_END = b"IEND\xae\x42\x60\x82"
# JPEG markers of the frame types that libjpeg decodes.
_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
# Markers of the other known JPEG segments: DHT, DAC, SOS, DQT, DNL, DRI, APP0 to APP15 and COM.
_OTHERS = frozenset((0xC4, 0xCC, _START_OF_SCAN, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE))
# Number of the EXIF orientation tag in both byte orders.
_ORIENTATION = (b"\x01\x12", b"\x12\x01")


def is_whole(image: bytes) -> bool:
    """Return True for a JPEG or PNG with an end marker, and for every image of another format."""
    if image.startswith(_PNG):
        return image.endswith(_PNG_END) or _PNG_END in image
    return has_end(np.frombuffer(image, np.uint8))


def read_size(image: bytes) -> tuple[int, int] | None:
    """Return the (height, width) of an encoded image in pixels, as read from its header.

    None means that only decoding gives the size: the format is not JPEG or PNG, the header is
    damaged or unsupported, or an EXIF orientation may swap the height and width of the image.
    """
    if image.startswith(_JPEG):
        return _size_of_jpeg(image)
    if image.startswith(_PNG) and image[12:16] == b"IHDR":
        width, height = (int.from_bytes(image[at : at + 4], "big") for at in (16, 20))
        may_rotate = width != height and b"eXIf" in image
        return None if may_rotate or not width or not height else (height, width)
    return None


def _size_of_jpeg(image: bytes) -> tuple[int, int] | None:
    size, may_rotate = None, False
    for code, at in segments(image):
        if code in _FRAMES:
            frame = image[at + 2 : at + 8]  # bits per sample, height, width, components
            height, width = (int.from_bytes(frame[i : i + 2], "big") for i in (1, 3))
            known = len(frame) == 6 and frame[0] == 8 and frame[5] in (1, 3, 4)
            if size or not known or not height or not width:
                return None
            size = height, width
        elif code == _START_OF_SCAN:
            rotated = size is not None and size[0] != size[1] and may_rotate
            return None if rotated else size
        elif code not in _OTHERS or image[at : at + 2] < b"\0\2":  # no valid segment length
            return None
        elif code == _APP1:
            length = int.from_bytes(image[at : at + 2], "big")
            may_rotate |= any(tag in image[at + 2 : at + length] for tag in _ORIENTATION)
    return None
