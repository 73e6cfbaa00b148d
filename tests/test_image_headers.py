# SPDX-License-Identifier: Apache-2.0
"""Sizes in the headers of encoded images, compared with decoded pixels; ends of images."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from image_headers import decoded_size, has_size, is_whole, stored_size

PIXELS = np.random.default_rng(0).integers(0, 255, (45, 67, 3), np.uint8)


def encoded(suffix, pixels=PIXELS, options=()):
    return cv2.imencode(suffix, pixels, list(options))[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".jp2"])
def test_the_size_is_that_of_the_decoded_image(suffix):
    image = encoded(suffix)
    assert stored_size(image) == cv2.imdecode(np.frombuffer(image, np.uint8), 1).shape[:2]
    assert has_size(image, (45, 67)) and has_size(image, (67, 45))
    assert not has_size(image, (45, 68))


def test_lossy_webp_and_progressive_jpeg_state_their_size():
    assert stored_size(encoded(".webp", options=[cv2.IMWRITE_WEBP_QUALITY, 50])) == (45, 67)
    assert stored_size(encoded(".jpg", options=[cv2.IMWRITE_JPEG_PROGRESSIVE, 1])) == (45, 67)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".jp2"])
def test_every_truncated_header_gives_a_size_or_none(suffix):
    image = encoded(suffix)
    for end in range(min(len(image), 700)):
        size = stored_size(image[:end])
        assert size is None or (size[0] > 0 and size[1] > 0)


@pytest.mark.parametrize(
    "image", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda", b"nothing", b"P6\n3", b"GIF89a", b"\0" * 99]
)
def test_other_bytes_have_no_size(image):
    assert stored_size(image) is None and not has_size(image, (45, 67))


@pytest.mark.parametrize("segment", [b"\xff\xe1\0\2", b"\xff\xda\0\2"])
def test_a_jpeg_with_segments_that_take_hours_to_decode_states_no_size(segment):
    image = encoded(".jpg")
    scan = image.index(b"\xff\xda")
    most = 1024 if segment[1] == 0xE1 else 99
    for at in (2, scan, len(image) - 2):
        if segment[1] == 0xE1 or at > scan:
            assert stored_size(image[:at] + most * segment + image[at:]) == (45, 67)
            assert stored_size(image[:at] + (most + 1) * segment + image[at:]) is None


def test_markers_after_the_end_and_inside_segments_do_not_count():
    image = encoded(".jpg")
    assert stored_size(image + b"\xff\xe1\0\2\xff\xda" * 5000) == (45, 67)
    comment = b"\xff\xfe\x9c\x42" + b"\xff\xe1\xff\xda" * 10_000
    assert stored_size(image[:2] + comment + image[2:]) == (45, 67)


def test_an_enormous_size_is_read_as_stated():
    image = bytearray(encoded(".png"))
    image[16:24] = (30_000).to_bytes(4, "big") * 2
    assert stored_size(bytes(image)) == (30_000, 30_000)


NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
WIDE = cv2.imencode(".jpg", NOISE)[1].tobytes()
PNG = cv2.imencode(".png", NOISE)[1].tobytes()
SQUARE = NOISE[:, :20]


def pixels_size(image: bytes) -> tuple[int, int] | None:
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else pixels.shape[:2]


def jpeg(pixels: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def segment(code: int, body: bytes) -> bytes:
    return b"\xff" + bytes([code]) + struct.pack(">H", len(body) + 2) + body


def exif(orientation: int, order: str = "<") -> bytes:
    mark = b"II" if order == "<" else b"MM"
    entry = struct.pack(order + "HHIHH", 0x112, 3, 1, orientation, 0)
    return mark + struct.pack(order + "HIH", 42, 8, 1) + entry + bytes(4)


def with_exif(image: bytes, orientation: int, order: str = "<") -> bytes:
    return image[:2] + segment(0xE1, b"Exif\0\0" + exif(orientation, order)) + image[2:]


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + body))
    return png[:33] + struct.pack(">I", len(body)) + name + body + checksum + png[33:]


@pytest.mark.parametrize(
    "image",
    [
        WIDE,
        jpeg(NOISE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        jpeg(NOISE, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        jpeg(NOISE[..., 0]),  # grey
        jpeg(np.zeros((300, 1, 3), np.uint8)),
        PNG,
        cv2.imencode(".png", NOISE[..., 0])[1].tobytes(),
        WIDE[:2] + segment(0xE0, WIDE) + segment(0xFE, PNG) + WIDE[2:],  # sizes inside segments
        WIDE[:2] + b"\xff\xff\xff" + WIDE[2:],  # fill bytes before a marker
        with_exif(jpeg(SQUARE), 6),  # rotation keeps the size of a square
        with_chunk(cv2.imencode(".png", SQUARE)[1].tobytes(), b"eXIf", exif(6)),
        WIDE + with_exif(WIDE, 6),  # bytes after the end marker
    ],
    ids=lambda _: "",
)
def test_the_size_in_the_header_is_that_of_the_pixels(image):
    assert decoded_size(image) == pixels_size(image) is not None


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_size_is_unknown_if_exif_may_rotate_the_image(order):
    for orientation in range(10):
        image = with_exif(WIDE, orientation, order)
        rotated = 5 <= orientation <= 8
        assert pixels_size(image) == ((30, 20) if rotated else (20, 30))
        assert decoded_size(image) is None


@pytest.mark.parametrize(
    "image",
    [
        with_chunk(PNG, b"eXIf", exif(6)),
        WIDE.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),  # 12 bits
        WIDE.replace(b"\xff\xc0", b"\xff\xc3"),  # lossless
        WIDE.replace(b"\0\x14\0\x1e\x03", b"\0\0\0\x1e\x03"),  # no height
        WIDE[:2] + b"\xff\xb0\0\2" + WIDE[2:],  # an undefined marker
        WIDE[:2] + b"\xff\xfe\0\0" + WIDE[2:],  # shorter than its own length
        cv2.imencode(".bmp", NOISE)[1].tobytes(),
        cv2.imencode(".webp", NOISE)[1].tobytes(),
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xc0",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"no image",
        b"",
    ],
    ids=lambda _: "",
)
def test_the_size_of_other_headers_is_unknown(image):
    assert decoded_size(image) is None


def test_a_truncated_image_has_no_wrong_size_and_no_end():
    for image in (WIDE, PNG, with_exif(WIDE, 6)):
        for cut in range(len(image)):
            assert decoded_size(image[:cut]) in (None, (20, 30))
            assert not is_whole(image[:cut]) or not image[:cut].startswith((b"\xff\xd8", PNG[:8]))


def test_images_with_an_end_marker_are_whole():
    for image in (WIDE, PNG, with_exif(WIDE, 6), b"GIF89a", b""):
        assert is_whole(image)
        assert is_whole(image + b"\0\0\n")
