# SPDX-License-Identifier: Apache-2.0
"""What becomes of damaged JPEGs: refused by key, refused without one, or trained on silently."""

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

IMAGES = 16  # of a set, one of which is damaged
DAMAGED = 5  # its place
FLIPPED = (1, 10, 100)  # bytes
CUT_AT = (0.25, 0.5, 0.9)
FAR = 8.0 / 128  # difference of normalised pixels that the eye might see
SOS, DHT = b"\xff\xda", b"\xff\xc4"  # start of scan, Huffman tables
KINDS = tuple(
    [f"cut at {share:.0%}" for share in CUT_AT]
    + [f"{count} bytes flipped" for count in FLIPPED]
    + ["tables of zeros"]
)


def damage(jpeg: bytes, kind: str) -> bytes:
    """Return a JPEG with one of KINDS of damage; the same for the same image and kind."""
    data = bytearray(jpeg)
    if kind.startswith("cut"):
        share = float(kind.split()[2].rstrip("%")) / 100
        return bytes(data[: int(len(data) * share)])
    if kind.startswith("tables"):
        begin = jpeg.index(DHT) + 4
        length = int.from_bytes(jpeg[begin - 2 : begin], "big") - 2
        data[begin : begin + length] = bytes(length)
        return bytes(data)
    begin = jpeg.index(SOS) + 14  # behind the header of the scan
    for place in np.random.default_rng(len(jpeg)).integers(
        begin, len(jpeg) - 2, int(kind.split()[0])
    ):
        data[place] ^= 0x55
    return bytes(data)


def outcome(jpegs: Sequence[bytes], kind: str, decode: str, ctx: mx.Context, scratch: Path) -> str:
    """Return what a loader does with a set of which one image is damaged.

    Outputs
    -------
    "named": refused by its key; "refused: ...": without one; "silent": some image comes out other
    than the sound one by more than the eye might miss; "same pixels" otherwise.
    """
    sound = [(place // 2, bytes(jpegs[place % len(jpegs)])) for place in range(IMAGES)]
    broken = list(sound)
    broken[DAMAGED] = (sound[DAMAGED][0], damage(sound[DAMAGED][1], kind))
    folder = scratch / f"{decode}-{kind.replace(' ', '-')}"
    try:
        found = _images(broken, decode, ctx, folder / "broken")
    except RecordError as error:
        key = f"key {DAMAGED + 1}"
        return "named" if key in str(error) else f"refused: {error}"
    except (ValueError, RuntimeError) as error:
        return f"refused: {' '.join(str(error).split())[:200]}"
    true = _images(sound, decode, ctx, folder / "sound")
    return "silent" if np.abs(found - true).max() > FAR else "same pixels"


def _images(
    images: Sequence[tuple[int, bytes]], decode: str, ctx: mx.Context, folder: Path
) -> np.ndarray:
    """Return all images of a new set as the loader delivers them, in one batch."""
    write_record_set(folder, images, IMAGES // 2)
    records = open_records(folder, folder)
    loader = build_loader("dali", records, IMAGES, ctx=ctx, decode=decode)
    try:
        return next(loader).image.asnumpy()
    finally:
        loader.close()
