# SPDX-License-Identifier: Apache-2.0
"""The size of the images of a record set, from the images themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from encoded_images import decode, has_end
from pipeline.records.mapped import RecordError
from pipeline.records.reader import RecordReader

if TYPE_CHECKING:
    from pipeline.records.property_file import Property
    from pipeline.records.record_set import RecordSet

_OTHERS = 3  # images that are measured where the first one does not fit the property file


def measure(records: RecordSet) -> tuple[int, int]:
    """Return (height, width) of the first image in pixels, for sets without a property file."""
    size = _size_of(records, 0)
    if size is None:
        raise records.image_error(0, "cannot be decoded")
    return size


def compare_size(records: RecordSet, file: Path, said: Property) -> None:
    """Refuse a property file that gives another size than the images have.

    Where only some images have another size, it is they that are refused, when they are read.
    """
    last = len(records) - 1
    try:
        size = _size_of(records, 0)
        if size is None or size == said.image_size:
            return
        others = np.unique(np.linspace(min(1, last), last, _OTHERS).astype(np.int64))
        if any(_size_of(records, row) == said.image_size for row in others.tolist()):
            return
    except RecordError:
        return  # a damaged record: the reader names it
    height, width = records.image_size
    raise RecordError(
        f"{file}: its size, {height}x{width}, is not that of the images, got the line {said.line} "
        f"and {size[0]}x{size[1]} for the image of key {records.keys[0]}; fix the line or remove "
        "the file"
    )


def _size_of(records: RecordSet, row: int) -> tuple[int, int] | None:
    """Return (height, width) of an image in pixels; None if it cannot be decoded."""
    reader = RecordReader(records)
    jpeg = reader.read(np.array([row]))[0]
    # OpenCV decodes an image that has lost its end, and writes about it to standard error.
    image = decode(jpeg) if has_end(jpeg) else None
    reader.check_files()
    return None if image is None else (image.shape[0], image.shape[1])
