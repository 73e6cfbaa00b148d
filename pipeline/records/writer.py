# SPDX-License-Identifier: Apache-2.0
"""Write InsightFace record sets: ``<name>.rec``, ``<name>.idx`` and ``property``.

``pipeline.records.recordio`` describes the bytes of a record.  A set with a header record has the
keys

    0                      labels [id_start, id_end), no image
    1 .. id_start - 1      images, sorted by person
    id_start .. id_end - 1 one record per person: labels [first key, last key + 1), no image
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
_MAX_KEYS = 1 << 24  # identity records store keys as float32, which is exact up to here
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
    """Write one record set completely, or, after an error, none of its files.

    Images are streamed: only one is in memory at a time.  ``property`` appears last, so a folder
    with that file has a complete set.

    Parameters
    ----------
    folder
        Folder of the files; created if missing.
    images
        Pairs (label, JPEG bytes); labels are 0 .. num_classes - 1, sorted if there is a header.
    num_classes
        Number of people.  A person without images gets an identity record with an empty range.
    image_size
        (height, width) in pixels, as written to ``property``.
    name
        Stem of the .rec and the .idx.
    header
        Write the header record and the identity records.  False: only images, with keys from 0 on,
        as im2rec does.
    vector_labels
        Store the label as the vector [label, 1.0] (flag 2) instead of a scalar.

    Returns
    -------
    Number of images written.

    Raises
    ------
    ValueError
        If labels are unsorted, out of range or not whole, if an image is no JPEG, or if there are
        no images.
    OSError
        If the folder cannot be written.
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
            append(0, [0.0, 0.0])  # a placeholder, overwritten below
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
    """Yield the bytes of one record, split into frames; their number is a multiple of 4.

    A reader may search for the magic number at multiples of 4 to find the next record.  Therefore
    the payload must not contain it there.
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
    """Return image header and image; a list of labels is stored as a vector."""
    vector = label if isinstance(label, list) else []
    scalar = 0.0 if isinstance(label, list) else label
    head = struct.pack("<IfQQ", len(vector), scalar, key, 0)
    return head + struct.pack(f"<{len(vector)}f", *vector) + jpeg


def _write_images(
    append: Callable[[int, float | list[float], bytes], None],
    images: Iterable[tuple[int, bytes]],
    num_classes: int,
    header: bool,
    vector_labels: bool,
) -> tuple[list[tuple[int, int]], int]:
    """Append all images; return the range of keys of each person and the number of images."""
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
                f"image {key}: labels must be sorted, got {label} after {previous}; sort the pairs"
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
        raise ValueError(
            "images: at least one is needed, got none; check the folder that they come from"
        )
    return ranges, key - first_key
