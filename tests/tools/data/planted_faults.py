"""Write a record set with planted faults of ten kinds, and return what a check must find.

python -m tests.tools.data.planted_faults OUT writes the set for a check by hand.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from pipeline.records.writer import write_record_set

FAULTS_PER_KIND = 20
PEOPLE, IMAGES_PER_PERSON = 40, 10
SIZE = (48, 40)
Expected = set[tuple[str, int]]
"""Pairs (kind, key), or (kind, -line) for lines of the .idx that have no key."""


def face(person: int, shot: int, size: tuple[int, int] = SIZE, *, grey: bool = False) -> np.ndarray:
    """Return the pixels of one image, BGR uint8 (H, W, 3)."""
    rng = np.random.default_rng([person, shot])
    pixels = rng.integers(0, 255, (6, 5, 3), np.uint8)
    pixels[0, 0] = (250, 10, 10)  # every image has a colour
    pixels = cv2.resize(pixels, size[::-1])
    return (
        cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        if grey
        else pixels
    )


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _marker(data: bytes, code: int) -> int:
    """Return the offset of the first JPEG marker with a code, outside the scan."""
    return data.index(bytes([0xFF, code]))


def _damaged(number: int, data: bytes) -> bytes:
    changed = bytearray(data)
    scan = _marker(data, 0xDA) + 14
    if number % 4 == 0:  # no frame header, so no size
        changed[_marker(data, 0xC0) + 1] = 0xE5
    elif number % 4 == 1:  # a Huffman table with more codes than are possible
        at = _marker(data, 0xC4) + 5
        changed[at : at + 16] = b"\xff" * 16
    elif number % 4 == 2:  # a frame header of 7 components
        changed[_marker(data, 0xC0) + 9] = 7
    else:  # a marker of another frame within the scan
        at = scan + (len(data) - scan) // 2
        changed[at : at + 8] = b"\xff\xc0\x00\x04\x00\x00\xff\xc0"
    return bytes(changed)


def _cut_off(number: int, data: bytes) -> bytes:
    scan = _marker(data, 0xDA) + 14
    end = scan + (len(data) - scan) * (1 + number % 7) // 9
    cut = data[:end].rstrip(b"\xff")
    return cut + b"\xff\xd9" if number % 2 else cut


def _wrong_size(number: int, data: bytes) -> bytes:
    sizes = ((49, 40), (48, 41), (24, 20), (96, 80), (112, 112))
    return jpeg(face(900, number, sizes[number % 5]))


def _grey(number: int, data: bytes) -> bytes:
    pixels = face(901, number, grey=True)
    return jpeg(pixels if number % 2 else pixels[:, :, 0])


def _turned(number: int, data: bytes) -> bytes:
    """Return a JPEG with an Exif orientation, whose upright size is SIZE.

    Every third JPEG begins with a JFIF segment, after which OpenCV ignores Exif.
    """
    orientation, has_jfif = 2 + number % 7, number % 3 == 0
    stored = SIZE if orientation < 5 or has_jfif else SIZE[::-1]
    plain = jpeg(face(902, number, stored))
    order = "<" if number % 2 else ">"
    content = (b"II" if number % 2 else b"MM") + struct.pack(
        order + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0
    )
    segment = b"Exif\0\0" + content
    exif = b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment
    end = 2 + 2 + int.from_bytes(plain[4:6], "big")  # end of the JFIF segment
    return plain[: end if has_jfif else 2] + exif + plain[end:]


REPLACED: dict[str, Callable[[int, bytes], bytes]] = {
    "damaged": _damaged,
    "cut_off": _cut_off,
    "wrong_size": _wrong_size,
    "grey": _grey,
    "turned": _turned,
}


def plant(folder: Path) -> Expected:
    """Write train.rec, train.idx and property with 200 faults; return what a check must find."""
    singles = FAULTS_PER_KIND
    images = [(p, jpeg(face(p, shot))) for p in range(PEOPLE) for shot in range(IMAGES_PER_PERSON)]
    images += [(PEOPLE + n, jpeg(face(PEOPLE + n, 0))) for n in range(singles)]
    classes = PEOPLE + singles
    # The first image of each person stays sound; fault number n has the place places[n].
    places = iter([p * IMAGES_PER_PERSON + shot for shot in range(1, 9) for p in range(PEOPLE)])
    expected = {("single", 1 + PEOPLE * IMAGES_PER_PERSON + n) for n in range(singles)}
    for kind, change in REPLACED.items():
        for number, place in zip(range(FAULTS_PER_KIND), places):
            label, data = images[place]
            images[place] = (label, change(number, data))
            expected.add((kind, 1 + place))
    for number, place in zip(range(FAULTS_PER_KIND), places):
        person = images[place][0] if number % 2 else (number * 3) % (place // IMAGES_PER_PERSON)
        images[place] = (images[place][0], images[person * IMAGES_PER_PERSON][1])
        expected.add(("duplicate", 1 + place))
    write_record_set(folder, images, classes, image_size=SIZE)
    lines = (folder / "train.idx").read_bytes().splitlines(keepends=True)
    offsets = [int(line.split()[1]) for line in lines]
    rec = bytearray((folder / "train.rec").read_bytes())
    wrong = (-1.0, 1.5, float("nan"), float(classes), 1e9)
    for kind in ("label", "label_range"):
        for number, place in zip(range(FAULTS_PER_KIND), places):
            label = images[place][0]
            value = float((label + 1 + number) % PEOPLE) if kind == "label" else wrong[number % 5]
            rec[offsets[1 + place] + 12 : offsets[1 + place] + 16] = struct.pack("<f", value)
            expected.add((kind, 1 + place))
    (folder / "train.rec").write_bytes(rec)
    odd = (
        lambda key: b"%d %d x\n" % (key, offsets[key]),
        lambda key: b"%d\t%d\n" % (key, offsets[key] + 4),
        lambda key: b"\n",
        lambda key: b"%d\t%d\n" % (key, len(rec) + key),
        lambda key: b"%d\t%d\n" % (key, offsets[key - 1]),
        lambda key: b"%d\t%d\n" % (key - 1, offsets[key]),
        lambda key: b"%d\t%d\n" % (key, 1 << 63),
    )
    for number, place in zip(range(FAULTS_PER_KIND), places):
        key = 1 + place
        lines[key] = odd[number % 7](key)
        where = {0: -(key + 1), 2: -(key + 1), 5: key - 1, 6: -(key + 1)}.get(number % 7, key)
        expected.add(("index", where))
    (folder / "train.idx").write_bytes(b"".join(lines))
    assert len(expected) == 10 * FAULTS_PER_KIND
    return expected


if __name__ == "__main__":
    for kind, key in sorted(plant(Path(sys.argv[1]))):
        print(kind, f"key {key}" if key >= 0 else f"line {-key}")
