# SPDX-License-Identifier: Apache-2.0
"""Make the JPEG of a record from an image file: keep a JPEG that fits, encode any other image.

A JPEG fits if it has the size of the set, grey or YCbCr samples of 8 bits, no Exif orientation that
turns it, and an end-of-image marker.  Such a JPEG is stored unchanged.  Every other image is
decoded, turned upright, resized and encoded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from encoded_images import decode_upright, has_turning_exif
from evaluation.image_files import MAX_IMAGE_PIXELS
from image_headers import (
    JpegFrame,
    has_too_many_segments,
    is_whole,
    jpeg_frame,
    stored_size,
)

if TYPE_CHECKING:
    from tools.data.decoder_warnings import DecoderWarnings

SAMPLINGS = {
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}
"""Chroma samplings of encoded images, and their numbers in OpenCV."""
STORED, TURNED, CONVERTED = "stored", "turned", "converted"
RESIZED, STRETCHED, CUT = "resized", "stretched", "cut"
ALIGNED, CENTRED = "aligned", "centred"
CHANGES = {
    STORED: "stored byte for byte",
    RESIZED: "resized and encoded",
    STRETCHED: "stretched from another aspect ratio and encoded; --crop crops them instead",
    CUT: "cut around the centre, resized and encoded",
    TURNED: "turned as Exif says and encoded",
    CONVERTED: "converted from another format and encoded",
    ALIGNED: "aligned by five points of a face and encoded",
    CENTRED: "cut out around their centre, because no face fits the rules, and encoded",
}
"""What was done to an image, and its description."""
_MAX_SIMPLE_BYTES = 1 << 20
_MAX_STRETCH = 1.02  # aspect ratios that differ by at most this factor count as equal
# Codes of the frame markers of JPEGs with baseline, extended sequential and progressive Huffman
# coding, which every JPEG decoder supports.
_FITTING_CODES = (0xC0, 0xC1, 0xC2)
_START_OF_SCAN = 0xDA
# Codes of the markers DHT, DQT, DRI, APP0, APP2 to APP15 and COM; APP1 may hold Exif data.
_SIMPLE_SEGMENTS = frozenset((0xC4, 0xDB, 0xDD, 0xE0, *range(0xE2, 0xF0), 0xFE))


class UnfitImageError(ValueError):
    """Error for a file that is no usable image; the message is "<what is wrong>, got <value>"."""


class ImageFormat(NamedTuple):
    """Format of the images of a set."""

    height: int
    width: int
    quality: int = 95
    """Quality of encoded JPEGs, 1 to 100, on the scale of libjpeg."""
    sampling: str = "4:2:0"
    """Chroma sampling of encoded JPEGs, a key of SAMPLINGS."""
    crop: bool = False
    """Whether to crop an image of another aspect ratio around its centre; False: stretch it."""
    check_pixels: bool = False
    """Whether to decode also the JPEGs that fit, to find damaged ones."""


class FittedImage(NamedTuple):
    """JPEG of a record."""

    jpeg: bytes
    change: str
    """What was done to the image, a key of CHANGES."""


def fit_image(data: bytes, wanted: ImageFormat, warnings: DecoderWarnings) -> FittedImage:
    """Return the JPEG that a set of the format ``wanted`` stores for an encoded image.

    Raises
    ------
    UnfitImageError
        If the data are no image, are damaged or truncated, or state more than MAX_IMAGE_PIXELS
        pixels.
    """
    if not wanted.check_pixels and fits_plainly(data, wanted):
        return FittedImage(data, STORED)
    frame = jpeg_frame(data)
    # The search for the prefix of Exif data is much faster than parsing the segments.
    turns = b"Exif\0\0" in data and has_turning_exif(data)
    fits = frame is not None and not turns and _fits(frame, wanted)
    if fits and not has_too_many_segments(data) and is_whole(data):
        if wanted.check_pixels:
            decode_image(data, warnings)
        return FittedImage(data, STORED)
    return _encode(data, frame, wanted, warnings)


def _fits(frame: JpegFrame, wanted: ImageFormat) -> bool:
    return (
        (frame.height, frame.width) == (wanted.height, wanted.width)
        and frame.code in _FITTING_CODES
        and frame.bits == 8
        and len(frame.sampling) in (1, 3)
    )


def fits_plainly(data: bytes, wanted: ImageFormat) -> bool:
    """Return True if a JPEG has a simple header and fits; False: only `fit_image` can tell.

    In a simple header, every segment begins where the previous one ends, and no segment can contain
    Exif data.  For such a header, `fit_image` need not search the bytes of the file for Exif data
    and markers.  This search takes most of its time for a JPEG that fits.
    """
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9" or len(data) > _MAX_SIMPLE_BYTES:
        return False
    frame = b"\x08" + wanted.height.to_bytes(2, "big") + wanted.width.to_bytes(2, "big")
    at, last, fits = 2, len(data) - 11, False
    while at < last and data[at] == 0xFF:
        code, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        if code == _START_OF_SCAN:
            return fits
        if code in _FITTING_CODES:
            components = data[at + 9]
            if fits or data[at + 4 : at + 9] != frame or components not in (1, 3):
                return False
            fits = length == 8 + 3 * components
        elif code not in _SIMPLE_SEGMENTS or length < 2:
            return False
        at += 2 + length
    return False


def _encode(
    data: bytes, frame: JpegFrame | None, wanted: ImageFormat, warnings: DecoderWarnings
) -> FittedImage:
    """Decode an image, turn it upright, resize it if its size differs, and encode it."""
    pixels = decode_image(data, warnings)
    change = TURNED if frame is not None and has_turning_exif(data) else CONVERTED
    if pixels.shape[:2] != (wanted.height, wanted.width):
        pixels, change = _resize(pixels, wanted)
    return FittedImage(encode_jpeg(pixels, wanted.quality, wanted.sampling), change)


def encode_jpeg(pixels: np.ndarray, quality: int, sampling: str) -> bytes:
    """Encode BGR pixels, uint8 (H, W, 3), as JPEG; ``sampling`` is a key of SAMPLINGS."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]]
    done, jpeg = cv2.imencode(".jpg", pixels, options)
    if not done:
        raise UnfitImageError("cannot be encoded as JPEG, got an error of OpenCV")
    return jpeg.tobytes()


def decode_image(data: bytes, warnings: DecoderWarnings) -> np.ndarray:
    """Decode an image to upright BGR pixels, uint8 (H, W, 3).

    Raises
    ------
    UnfitImageError
        If the data are no image, are damaged or truncated, or state more than MAX_IMAGE_PIXELS
        pixels.
    """
    size = stored_size(data)
    if size is None:
        raise UnfitImageError(f"is no image, got {len(data)} bytes of another format")
    if size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise UnfitImageError(
            f"has more than {MAX_IMAGE_PIXELS} pixels, got {size[0]}x{size[1]} pixels"
        )
    if not is_whole(data):
        raise UnfitImageError(f"is truncated, got {len(data)} bytes without an end marker")
    warnings.clear()
    pixels = decode_upright(np.frombuffer(data, np.uint8))
    damage = warnings.read_damage()
    if pixels is None:
        raise UnfitImageError(f"cannot be decoded, got {damage or 'damaged or unsupported data'}")
    if damage:
        raise UnfitImageError(f"is damaged, got {damage}")
    return pixels


def _resize(pixels: np.ndarray, wanted: ImageFormat) -> tuple[np.ndarray, str]:
    """Resize pixels (H, W, 3) to the size of the set; return them and the kind of the change."""
    stretch = pixels.shape[0] * wanted.width / (pixels.shape[1] * wanted.height)
    change = RESIZED
    if max(stretch, 1 / stretch) > _MAX_STRETCH:
        change = CUT if wanted.crop else STRETCHED
    if change == CUT:
        pixels = _crop(pixels, wanted)
    height, width = pixels.shape[:2]
    smaller = height > wanted.height and width > wanted.width
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(pixels, (wanted.width, wanted.height), interpolation=method), change


def _crop(pixels: np.ndarray, wanted: ImageFormat) -> np.ndarray:
    """Return the largest central part of an image that has the aspect ratio of the set."""
    height, width = pixels.shape[:2]
    part_width = max(1, min(width, round(height * wanted.width / wanted.height)))
    part_height = max(1, min(height, round(width * wanted.height / wanted.width)))
    top, left = (height - part_height) // 2, (width - part_width) // 2
    return pixels[top : top + part_height, left : left + part_width]
