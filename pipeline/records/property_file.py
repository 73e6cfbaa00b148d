# SPDX-License-Identifier: Apache-2.0
"""Read the ``property`` file of a record set, and check its image size against the images.

For sets without the file, measure the first image.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from encoded_images import decode, has_end
from image_headers import stored_size
from pipeline.records.mapped import RecordError
from pipeline.records.reader import RecordReader
from pipeline.records.record_set import ImageError
from pipeline.records.recordio import quote_line
from regular_file import open_regular

if TYPE_CHECKING:
    from pipeline.records.record_set import RecordSet

_NUMBERS = re.compile(rb"\s*,\s*".join([rb"0*([1-9][0-9]{0,9})"] * 3))
# Largest num_classes (labels are int32), height and width (limits of the JPEG format).
_MAX_NUMBERS = ((1 << 31) - 1, 65_535, 65_535)
_READ_BYTES = 1 << 16
_MORE_MEASURED_IMAGES = 3
# An image whose header states more pixels is not decoded; its size is read from its header alone.
_MAX_DECODED_PIXELS = 1 << 24
MEASURED_IMAGES = 16


class Property(NamedTuple):
    """Content of a ``property`` file; the default values represent a missing file."""

    num_classes: int = 0
    image_size: tuple[int, int] | None = None  # (height, width) in pixels
    line: str = ""  # line of the file, in quotes for a message


def read_property(path: Path) -> Property:
    """Read the number of classes and the image size from the first non-blank line of the file.

    A byte order mark, spaces and further lines are ignored.  Raises RecordError if the line does
    not consist of three whole numbers above 0, or if a number is too large.  If the file does not
    exist, the result is an empty ``Property``.
    """
    try:
        with open_regular(path) as file:
            text = file.read(_READ_BYTES)
    except FileNotFoundError:
        return Property()
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read, got {error.strerror}; make it readable or remove it"
        ) from None
    line, *_ = text.removeprefix(b"\xef\xbb\xbf").strip().splitlines() or [b""]
    line = line.strip()
    found = _NUMBERS.fullmatch(line)
    numbers = [int(digits) for digits in found.groups()] if found else []
    if not found or any(n > most for n, most in zip(numbers, _MAX_NUMBERS, strict=True)):
        raise RecordError(
            f"{path}: the first line must be num_classes,height,width, three whole numbers above "
            f"0, got {quote_line(line)}; fix the line or remove the file"
        )
    classes, height, width = numbers
    return Property(classes, (height, width), quote_line(line))


def measure(records: RecordSet) -> tuple[int, int]:
    """Return (height, width) in pixels of the first good image of a set without a property file.

    Only the first MEASURED_IMAGES images are tried.  Raise RecordError if all of them are bad.
    """
    error: RecordError | None = None
    for row in range(min(MEASURED_IMAGES, len(records))):
        try:
            size = _image_size(records, row)
        except ImageError as damaged:
            error = error or damaged
            continue
        if size is not None:
            return size
        error = error or records.image_error(row, "cannot be decoded")
    assert error is not None
    raise error


def check_image_size(records: RecordSet, file: Path, found: Property) -> None:
    """Raise RecordError if the size in the property file is not that of the images.

    The check measures at most four images, and passes if one of them has the size in the file.  If
    other images have another size, the loader refuses them when it reads them.
    """
    last = len(records) - 1
    try:
        size = _image_size(records, 0)
        if size is None or size == found.image_size:
            return
        more = np.unique(np.linspace(min(1, last), last, _MORE_MEASURED_IMAGES).astype(np.int64))
        if any(_image_size(records, row) == found.image_size for row in more.tolist()):
            return
    except RecordError:
        return  # the record is damaged, which the reader reports later
    height, width = records.image_size
    raise RecordError(
        f"{file}: the image size {height}x{width} is wrong, got the line {found.line} in the file "
        f"and {size[0]}x{size[1]} for the image of key {records.keys[0]}; fix the line or remove "
        "the file"
    )


def _image_size(records: RecordSet, row: int) -> tuple[int, int] | None:
    """Return (height, width) in pixels of an image; None if it cannot be decoded."""
    reader = RecordReader(records)
    jpeg = reader.read(np.array([row]))[0]
    # Decode only complete images: OpenCV decodes a truncated one too, with a warning on stderr.
    size = stored_size(jpeg.tobytes()) if has_end(jpeg) else None
    if size is not None and size[0] * size[1] > _MAX_DECODED_PIXELS:
        reader.check_files()
        return size
    image = None if size is None else decode(jpeg)
    reader.check_files()
    return None if image is None else (image.shape[0], image.shape[1])
