# SPDX-License-Identifier: Apache-2.0
"""Damage JPEGs in several ways, and test how the loader reacts to the damaged JPEGs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.loader import build_loader
from pipeline.records.open import RecordError, open_records
from pipeline.records.writer import write_record_set

if TYPE_CHECKING:
    import mxnet as mx

IMAGES = 16
DAMAGED_ROW = 5
FLIPPED_BYTES = (1, 10, 100)
CUT_FRACTIONS = (0.25, 0.5, 0.9)
VISIBLE_DIFFERENCE = 8.0 / 128  # Normalised pixels differ by this if grey levels differ by 8.
SOS, DHT = b"\xff\xda", b"\xff\xc4"  # JPEG markers: start of scan, Huffman tables.
KINDS = tuple(
    [f"cut at {share:.0%}" for share in CUT_FRACTIONS]
    + [f"{count} bytes flipped" for count in FLIPPED_BYTES]
    + ["tables of zeros"]
)


def damage(jpeg: bytes, kind: str) -> bytes:
    """Return a copy of a JPEG with damage of a kind in KINDS; equal inputs give equal copies."""
    data = bytearray(jpeg)
    if kind.startswith("cut"):
        share = float(kind.split()[2].rstrip("%")) / 100
        return bytes(data[: int(len(data) * share)])
    if kind.startswith("tables"):
        start = jpeg.index(DHT) + 4
        length = int.from_bytes(jpeg[start - 2 : start], "big") - 2
        data[start : start + length] = bytes(length)
        return bytes(data)
    start = jpeg.index(SOS) + 14  # The scan header of a colour JPEG has 14 bytes, marker included.
    random = np.random.default_rng(len(jpeg))
    for position in random.integers(start, len(jpeg) - 2, int(kind.split()[0])):
        data[position] ^= 0x55
    return bytes(data)


def load_damaged(
    jpegs: Sequence[bytes], kind: str, decode: str, ctx: mx.Context, scratch: Path
) -> str:
    """Load a record set with one damaged image; return how the loader reacts.

    Outputs
    -------
    "named" if the loader raises an error that contains the key of the damaged image.
    "refused: ..." if the loader raises an error without that key.  "silent" if the loader raises no
    error and delivers visibly wrong pixels.  "same pixels" if the loader delivers the right pixels.
    """
    sound = [(row // 2, bytes(jpegs[row % len(jpegs)])) for row in range(IMAGES)]
    broken = list(sound)
    label, jpeg = sound[DAMAGED_ROW]
    broken[DAMAGED_ROW] = (label, damage(jpeg, kind))
    folder = scratch / f"{decode}-{kind.replace(' ', '-')}"
    try:
        found = _images(broken, decode, ctx, folder / "broken")
    except RecordError as error:
        key = f"key {DAMAGED_ROW + 1}"
        return "named" if key in str(error) else f"refused: {error}"
    except (ValueError, RuntimeError) as error:
        return f"refused: {' '.join(str(error).split())[:200]}"
    expected = _images(sound, decode, ctx, folder / "sound")
    wrong = np.abs(found - expected).max() > VISIBLE_DIFFERENCE
    return "silent" if wrong else "same pixels"


def _images(
    images: Sequence[tuple[int, bytes]], decode: str, ctx: mx.Context, folder: Path
) -> np.ndarray:
    """Write a record set, load all its images as one batch, and return their pixels."""
    write_record_set(folder, images, IMAGES // 2)
    records = open_records(folder, folder)
    loader = build_loader("dali", records, IMAGES, ctx=ctx, decode=decode)
    try:
        return next(loader).image.asnumpy()
    finally:
        loader.close()
