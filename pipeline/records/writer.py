# SPDX-License-Identifier: Apache-2.0
"""Write InsightFace record sets: `<name>.rec`, `<name>.idx` and `property`.

The bytes of a record: `pipeline.records.recordio`.  With a header record the keys are laid out as

    0                      labels [id_start, id_end), no body
    1 .. id_start - 1      images, sorted by person
    id_start .. id_end - 1 one record per person: labels [first key, last key + 1), no body
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from atomic_write import atomic_write_together
from pipeline.records import recordio
from pipeline.records.recordio import MAGIC

MAGIC_BYTES = struct.pack("<I", MAGIC)
_MAX_KEYS = 1 << 24  # keys are stored as float32 labels: beyond this they are rounded
_MAGIC = re.compile(re.escape(MAGIC_BYTES))
_FLOAT = struct.Struct("<f")


def write_record_set(
    folder: str | os.PathLike,
    images: Iterable[tuple[int, bytes]],
    num_classes: int,
    image_size: tuple[int, int] = (112, 112),
    name: str = "train",
    header: bool = True,
    vector_labels: bool = False,
) -> int:
    """Write one record set; its files appear whole or not at all.

    Images are streamed: one is held at a time. `property` appears last, so a folder that has it
    has a whole set.

    Parameters
    ----------
    folder
        Where the files go; made if it is missing.
    images
        Pairs (label, JPEG bytes); labels are 0 .. num_classes - 1, sorted if there is a header.
    num_classes
        Number of people. A person without images gets an identity record with an empty range.
    image_size
        (height, width) in pixels, as written to `property`.
    name
        Stem of the .rec and the .idx.
    header
        Write the header record and the identity records. False: images alone, keys from 0, as
        im2rec does.
    vector_labels
        Store the label as the vector [label, 1.0] (flag 2) in place of a scalar.

    Returns
    -------
    Number of images written.

    Raises
    ------
    ValueError
        Labels out of order, out of range or no whole numbers, an image that is no JPEG, no images
        at all.
    OSError
        The folder cannot be written.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes: must be at least 1, got {num_classes}; count the people")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in (f"{name}.rec", f"{name}.idx", "property")]
    height, width = image_size
    with atomic_write_together(paths) as (rec, idx, prop):

        def append(key: int, label: float | list[float], jpeg: bytes = b"") -> None:
            idx.write(f"{key}\t{rec.tell()}\n".encode())
            rec.writelines(frame(_payload(key, label, jpeg)))

        if header:
            append(0, [0.0, 0.0])  # room for it; filled in at the end
        ranges, count = _write_images(append, images, num_classes, header, vector_labels)
        if header:
            id_start = count + 1
            if id_start + num_classes > _MAX_KEYS:
                raise ValueError(
                    f"{folder}: a header record holds at most {_MAX_KEYS} keys, got "
                    f"{id_start + num_classes}; write with header=False"
                )
            for person, (first, end) in enumerate(ranges):
                append(id_start + person, [first, end])
            rec.seek(0)
            rec.writelines(frame(_payload(0, [id_start, id_start + num_classes])))
        prop.write(f"{num_classes},{height},{width}\n".encode())
    return count


def frame(payload: bytes) -> Iterator[bytes]:
    """Yield the bytes of one record, in frames: a multiple of 4.

    A reader that has lost its place looks for the magic number at multiples of 4, so that a payload
    may not hold it there.
    """
    if len(payload) > recordio.MAX_LENGTH:
        raise ValueError(
            f"record: at most {recordio.MAX_LENGTH} bytes, got {len(payload)}; shrink the image"
        )
    cuts = [found.start() for found in _MAGIC.finditer(payload) if found.start() % 4 == 0]
    starts = [0, *(cut + len(MAGIC_BYTES) for cut in cuts)]
    middle = [recordio.MIDDLE] * (len(cuts) - 1)
    cflags = [recordio.FIRST, *middle, recordio.LAST] if cuts else [recordio.WHOLE]
    for cflag, start, end in zip(cflags, starts, [*cuts, len(payload)], strict=True):
        yield struct.pack("<II", MAGIC, cflag << recordio.LENGTH_BITS | end - start)
        yield payload[start:end]
    yield bytes(-len(payload) % 4)


def _payload(key: int, label: float | list[float], jpeg: bytes = b"") -> bytes:
    """Return image header and body; a list of labels is stored as a vector."""
    if isinstance(label, list):
        head = struct.pack("<IfQQ", len(label), 0.0, key, 0)
        return head + struct.pack(f"<{len(label)}f", *label) + jpeg
    return struct.pack("<IfQQ", 0, label, key, 0) + jpeg


def _write_images(
    append: Callable[[int, float | list[float], bytes], None],
    images: Iterable[tuple[int, bytes]],
    num_classes: int,
    header: bool,
    vector_labels: bool,
) -> tuple[list[tuple[int, int]], int]:
    """Append all images; return the range of keys of each person, and the number of images."""
    first_key = int(header)
    ranges = [(first_key, first_key)] * (num_classes if header else 0)
    key, previous = first_key, 0
    for label, jpeg in images:
        if not 0 <= label < num_classes:
            raise ValueError(
                f"image {key}: labels are 0 .. {num_classes - 1}, got {label}; number the people "
                "without gaps or raise num_classes"
            )
        if label != int(label) or _FLOAT.unpack(_FLOAT.pack(label))[0] != label:
            raise ValueError(
                f"image {key}: labels are whole numbers that float32 holds exactly, got {label}; "
                "number the people without gaps"
            )
        label = int(label)
        if header and label < previous:
            raise ValueError(
                f"image {key}: labels must not fall, got {label} after {previous}; sort by label"
            )
        if jpeg[:2] != b"\xff\xd8":
            raise ValueError(
                f"image {key}: no JPEG, got bytes beginning {bytes(jpeg[:4])!r}; encode it first"
            )
        append(key, [label, 1.0] if vector_labels else label, jpeg)
        if header:
            first, end = ranges[label]
            ranges[label] = (first if end > first else key, key + 1)
        key, previous = key + 1, label
    if key == first_key:
        raise ValueError("images: at least one is needed, got none; look at the source folder")
    return ranges, key - first_key
