# SPDX-License-Identifier: Apache-2.0
"""Truncated JPEGs, and images that Exif turns."""

from __future__ import annotations

import struct
import zlib

import cv2
import mxnet as mx
import numpy as np
import pytest

import ops
from encoded_images import decode, decode_upright, has_end, may_turn, upright


def test_a_truncated_jpeg_has_no_end(make_face):
    face = make_face(0, 0)
    image = cv2.imdecode(np.frombuffer(face, np.uint8), cv2.IMREAD_COLOR)
    progressive = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    restarts = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_RST_INTERVAL, 3])[1].tobytes()
    small = b"\xff\xe1" + (2 + len(face)).to_bytes(2, "big") + face
    with_thumbnail = face[:2] + small + face[2:]
    for jpeg in (face, progressive, restarts, with_thumbnail):
        for behind in (b"", bytes(7), b"\n", b"\xff\xff", face[:300]):
            assert has_end(np.frombuffer(jpeg + behind, np.uint8))
        for cut in (2, 3, 20, len(jpeg) // 2, len(jpeg) - 2, len(jpeg) - 1):
            for behind in (b"", bytes(7), b"\n"):
                assert not has_end(np.frombuffer(jpeg[:cut] + behind, np.uint8)), cut
    for other in (b"\x89PNG\r\n", b"\xff", b"GIF89a"):
        assert has_end(np.frombuffer(other, np.uint8))  # other formats


def tiff(order, *entries, start=8):
    """Return Exif data from the byte order on: one directory of (tag, type, value) entries."""
    mark = b"II" if order == "<" else b"MM"
    text = mark + struct.pack(order + "HI", 42, start) + bytes(start - 8)
    text += struct.pack(order + "H", len(entries))
    for tag, kind, value in entries:
        text += struct.pack(order + "HHIHH", tag, kind, 1, value, 0)
    return text + bytes(4)


def segment(marker, payload):
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def exif(order, *entries, start=8):
    return segment(0xE1, b"Exif\0\0" + tiff(order, *entries, start=start))


@pytest.fixture(scope="module")
def plain():
    """Return a JPEG that begins with JFIF and that every orientation changes; it is not square."""
    pixels = np.zeros((40, 24, 3), np.uint8)
    pixels[:8, :8], pixels[-8:, :8], pixels[:8, -8:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def inserted(jpeg, *segments, at=2):
    return jpeg[:at] + b"".join(segments) + jpeg[at:]


def turns(jpeg):
    """Return whether OpenCV turns an image."""
    data = np.frombuffer(jpeg, np.uint8)
    flags = (cv2.IMREAD_COLOR, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    one, two = (cv2.imdecode(data, f) for f in flags)
    return one is not None and (one.shape != two.shape or (one != two).any())


def compare_twins(jpegs):
    """Return the answers of ``may_turn`` in C++, after comparing them with those in Python."""
    arrays = [np.frombuffer(jpeg, np.uint8) for jpeg in jpegs]
    addresses = np.array([a.ctypes.data if a.size else 0 for a in arrays])
    ops.use("native")
    compiled = (
        ops.loader_kernels().find_turned(addresses, np.array([a.size for a in arrays])).tolist()
    )
    assert compiled == [may_turn(a) for a in arrays]
    return compiled


ORIENTATION, XMP = 0x0112, b"http://ns.adobe.com/xap/1.0/\0<x/>"
SIX = exif("<", (ORIENTATION, 3, 6))
VARIANTS = {  # segments before the JFIF segment, and whether OpenCV turns the image
    "other types": ([exif("<", (ORIENTATION, 4, 6))], True),
    "a LONG, big-endian": ([exif(">", (ORIENTATION, 4, 0))], False),
    "other entries first": ([exif(">", (0x0100, 3, 9), (0x0213, 3, 1), (ORIENTATION, 3, 3))], True),
    "two entries in one": ([exif("<", (ORIENTATION, 3, 1), (ORIENTATION, 3, 6))], False),
    "two, 6 first": ([SIX, exif("<", (ORIENTATION, 3, 1))], True),
    "two, 1 first": ([exif("<", (ORIENTATION, 3, 1)), SIX], False),
    "XMP first": ([segment(0xE1, XMP), SIX], False),
    "XMP behind": ([SIX, segment(0xE1, XMP)], True),
    "an empty one first": ([segment(0xE1, b""), SIX], False),
    "behind a comment": ([segment(0xFE, b"\xff\xe1\0\x04ab"), SIX], True),
    "behind Photoshop": ([segment(0xED, b"Photoshop 3.0\0"), SIX], True),
    "another name": ([segment(0xE1, b"Abcd\0\0" + tiff("<", (ORIENTATION, 3, 6)))], True),
    "no orientation": ([exif("<", (0x0100, 3, 6))], False),
    "no entries": ([exif("<")], False),
    "no TIFF": ([segment(0xE1, b"Exif\0\0" + bytes(40))], False),
    "a later directory": ([exif("<", (ORIENTATION, 3, 6), start=20)], True),
    "ends in its entry": ([segment(0xE1, SIX[4:-12])], False),
    "ends behind its number": ([segment(0xE1, SIX[4:-6])], True),
    "begins behind its end": ([segment(0xE1, SIX[4:14] + b"\xff\xff\xff\x7f" + SIX[18:])], False),
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 256])
def test_pixels_equal_those_of_mxnet_for_every_orientation(plain, order, orientation):
    turned = inserted(plain, exif(order, (ORIENTATION, 3, orientation)))
    for jpeg in (turned, inserted(plain, exif(order, (ORIENTATION, 3, orientation)), at=20)):
        expected = mx.image.imdecode(jpeg, to_rgb=0).asnumpy()
        assert (decode(np.frombuffer(jpeg, np.uint8)) == expected).all()
    assert compare_twins([turned]) == [2 <= orientation <= 8]
    copy = upright(np.frombuffer(turned, np.uint8))
    assert compare_twins([copy.tobytes()]) == [False]
    assert (decode(copy) == mx.image.imdecode(turned, to_rgb=0).asnumpy()).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_exif_is_parsed_as_opencv_parses_it(plain, name):
    segments, outcome = VARIANTS[name]
    jpeg = inserted(plain, *segments)
    assert compare_twins([jpeg]) == [outcome] == [turns(jpeg)]
    filled = jpeg[:2] + b"\xff\xff" + jpeg[2:]
    assert compare_twins([filled]) == [turns(filled)]


def test_exif_after_jfif_is_ignored(plain):
    behind = inserted(plain, SIX, at=20)
    assert compare_twins([behind]) == [False]
    expected = mx.image.imdecode(behind, to_rgb=0).asnumpy()
    assert expected.shape == (40, 24, 3)
    assert (decode(np.frombuffer(behind, np.uint8)) == expected).all()


def test_exif_in_a_png_is_ignored():
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    png = cv2.imencode(".png", pixels)[1].tobytes()
    body = b"eXIf" + tiff("<", (ORIENTATION, 3, 6))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    turned = png[:33] + chunk + png[33:]
    assert (decode(np.frombuffer(turned, np.uint8)) == pixels).all()
    assert compare_twins([turned]) == [False]


def webp(pixels, *chunks):
    """Return a lossless WebP with further chunks (name, content) before and after its pixels."""

    def chunk(name, content):
        return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    plain = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    height, width = pixels.shape[:2]
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    head = chunk(b"VP8X", b"\x08\0\0\0" + size)
    body = b"WEBP" + head + plain[12:] + b"".join(chunk(*given) for given in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("order", "<>")
def test_a_webp_is_turned_as_a_png_with_the_same_orientation(order, prefix):
    pixels = np.random.default_rng(5).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    png = cv2.imencode(".png", pixels)[1].tobytes()
    for orientation in range(10):
        content = tiff(order, (ORIENTATION, 3, orientation))
        body = b"eXIf" + content
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        expected = decode_upright(np.frombuffer(png[:33] + chunk + png[33:], np.uint8))
        found = webp(pixels, (b"ABCD", b"odd"), (b"EXIF", prefix + content))
        assert np.array_equal(decode_upright(np.frombuffer(found, np.uint8)), expected)


@pytest.mark.parametrize("chunk", [(b"EXIF", b""), (b"EXIF", b"MM"), (b"ABCD", b"no Exif data")])
def test_a_webp_with_damaged_exif_keeps_its_pixels(chunk):
    pixels = np.random.default_rng(5).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    image = webp(pixels, chunk)
    for cut in (0, 1, 3, 9):
        data = np.frombuffer(image[: len(image) - cut], np.uint8)
        found = decode_upright(data)
        assert found is None or np.array_equal(found, pixels)


def test_damaged_exif_that_opencv_applies_is_found(plain):
    random, later = np.random.default_rng(0), plain[:2] + plain[20:]  # without JFIF
    seeds = [inserted(plain, *segments) for segments, _ in VARIANTS.values()]
    seeds += [inserted(later, *segments) for segments, _ in VARIANTS.values()]
    scan = later.index(b"\xff\xda")
    seeds += [inserted(later, SIX, at=scan), inserted(plain, SIX, at=20), later + SIX]
    damaged = []
    for number in range(4000):
        jpeg = bytearray(seeds[number % len(seeds)])
        for _ in range(random.integers(1, 5)):
            jpeg[random.integers(2, 80)] = random.choice([0, 255, 0x12, 0xE1, random.integers(256)])
        damaged.append(bytes(jpeg[: random.integers(2, len(jpeg))] if number % 9 == 0 else jpeg))
    found = compare_twins(damaged)
    compare_twins([jpeg[:60] for jpeg in damaged])
    assert 400 < sum(found) < 3600
    for jpeg, may in zip(damaged, found, strict=True):
        first = jpeg[3:4] == b"\xe0" and jpeg[6:11] == b"JFIF\0"
        assert may or first or not turns(jpeg), jpeg[:90].hex(" ")
    compare_twins(
        [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1", b"\xff\xd8\xff\xe1\0"]
    )
