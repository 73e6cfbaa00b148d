# SPDX-License-Identifier: Apache-2.0
"""Write InsightFace record sets: ``<name>.rec``, ``<name>.idx`` and ``property``.

``pipeline.records.recordio`` describes the bytes of a record.  A set with a header record has these
records:

    key 0                       header record: labels (id_start, id_end), no image
    keys 1 .. id_start - 1      images, sorted by person
    keys id_start .. id_end - 1 identity records, one per person, no image: labels (key of the
                                person's first image, key of the last image + 1)
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
MAX_KEYS = 1 << 24
"""Largest number of keys of a set with identity records, which store keys as float32."""
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
    """Write one complete record set or, if an error occurs, none of its files.

    The function streams the images: only one image is in memory at a time.  It writes temporary
    files and renames that of ``property`` last, so a folder with ``property`` holds a complete set.

    Parameters
    ----------
    folder
        Folder for the files; created if it does not exist.
    images
        Pairs (label, JPEG bytes).  Labels are 0 .. num_classes - 1, and must be sorted if
        ``header`` is True.
    num_classes
        Number of people.  A person without images gets an identity record with an empty key range.
    image_size
        (height, width) in pixels, as written to ``property``.
    name
        File name of the .rec and the .idx without its extension.
    header
        Whether to write the header record and the identity records.  False: write only images, with
        keys 0, 1, 2, ..., as im2rec does.
    vector_labels
        Whether to store each label as the vector [label, 1.0] (flag 2) instead of a scalar.

    Returns
    -------
    Number of images written.

    Raises
    ------
    ValueError
        If labels are unsorted, out of range or not whole numbers, if an image is not a JPEG, or if
        there are no images.
    OSError
        If the folder cannot be written.
    """
    if num_classes < 1:
        raise ValueError(
            f"num_classes: must be at least 1, got {num_classes}; give the number of people"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in (f"{name}.rec", f"{name}.idx", "property")]
    height, width = image_size
    with atomic_write_together(paths) as (rec, idx, prop):

        def append(key: int, label: float | list[float], jpeg: bytes = b"") -> None:
            idx.write(f"{key}\t{rec.tell()}\n".encode())
            rec.writelines(frame(payload_bytes(key, label, jpeg)))

        if header:
            append(0, [0.0, 0.0])  # placeholder for the header record, overwritten below
        ranges, count = _write_images(append, images, num_classes, header, vector_labels)
        if header:
            id_start = count + 1
            if id_start + num_classes > MAX_KEYS:
                raise ValueError(
                    f"{folder}: a set with a header record has at most {MAX_KEYS} keys, got "
                    f"{id_start + num_classes}; write the set with header=False"
                )
            for person, (first, end) in enumerate(ranges):
                append(id_start + person, [first, end])
            rec.seek(0)
            rec.writelines(frame(payload_bytes(0, [id_start, id_start + num_classes])))
        prop.write(f"{num_classes},{height},{width}\n".encode())
    return count


def frame(payload: bytes) -> Iterator[bytes]:
    """Yield the bytes of one record, split into frames and padded to a multiple of 4 bytes.

    To find the next record, a reader may search for the magic number at multiples of 4 bytes.
    Therefore no frame's payload may contain the magic number at such an offset.  The function
    splits the payload at each such magic number and leaves the number out.
    """
    if len(payload) > recordio.MAX_LENGTH:
        raise ValueError(
            f"record: at most {recordio.MAX_LENGTH} bytes are possible, got {len(payload)}; shrink "
            "the image"
        )
    cuts = [found.start() for found in _MAGIC.finditer(payload) if found.start() % 4 == 0]
    starts = [0, *(cut + len(MAGIC_BYTES) for cut in cuts)]
    middle = [recordio.MIDDLE] * (len(cuts) - 1)
    cflags = [recordio.FIRST, *middle, recordio.LAST] if cuts else [recordio.WHOLE]
    for cflag, start, end in zip(cflags, starts, [*cuts, len(payload)], strict=True):
        yield struct.pack("<II", MAGIC, cflag << recordio.LENGTH_BITS | end - start)
        yield payload[start:end]
    yield bytes(-len(payload) % 4)


def payload_bytes(key: int, label: float | list[float], jpeg: bytes = b"") -> bytes:
    """Return the payload of a record: image header, labels and image.

    If ``label`` is a list, the labels are stored as a vector after the header.
    """
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
    """Append all images to the set; return the key range of each person, and the number of images.

    A key range is a pair (key of the first image, key after the last image).  Without a header the
    list of ranges is empty.
    """
    first_key = int(header)
    ranges = [(first_key, first_key)] * (num_classes if header else 0)
    key, previous = first_key, 0
    for label, jpeg in images:
        if not 0 <= label < num_classes:
            raise ValueError(
                f"image {key}: the label must be in 0 .. {num_classes - 1}, got {label}; number "
                "the identities 0, 1, 2, ... without gaps or raise num_classes"
            )
        if label != int(label) or _FLOAT.unpack(_FLOAT.pack(label))[0] != label:
            raise ValueError(
                f"image {key}: the label must be a whole number that float32 represents exactly, "
                f"got {label}; number the identities 0, 1, 2, ... without gaps"
            )
        label = int(label)
        if header and label < previous:
            raise ValueError(
                f"image {key}: labels must be sorted, got {label} after {previous}; sort the "
                "images by label"
            )
        if jpeg[:2] != b"\xff\xd8":
            raise ValueError(
                f"image {key}: must be a JPEG, got bytes that begin with {bytes(jpeg[:4])!r}; "
                "encode the image as JPEG first"
            )
        append(key, [label, 1.0] if vector_labels else label, jpeg)
        if header:
            first, end = ranges[label]
            ranges[label] = (first if end > first else key, key + 1)
        key, previous = key + 1, label
    if key == first_key:
        raise ValueError(
            "images: at least one image is needed, got none; check the source folder of the images"
        )
    return ranges, key - first_key
