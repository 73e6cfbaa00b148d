# SPDX-License-Identifier: Apache-2.0
"""The `property` file of a record set: number of people and size of the images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from pipeline.records.mapped import RecordError
from pipeline.records.recordio import shown

_NUMBERS = re.compile(rb"([0-9]+)\s*,\s*([0-9]+)\s*,\s*([0-9]+)")
_LARGEST_CLASSES = (1 << 31) - 1  # labels are int32
_LARGEST_SIDE = 65_535  # pixels: a JPEG holds no more
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_READ_BYTES = 1 << 16


class Property(NamedTuple):
    """What a `property` file says; without values where there is none."""

    num_classes: int = 0
    image_size: tuple[int, int] | None = None  # (height, width) in pixels
    line: str = ""  # as a message shows it


def read_property(path: Path) -> Property:
    """Return what the first line of a `property` file says.

    A byte order mark, spaces and more lines are passed over; anything but three whole numbers above
    0 is refused.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_READ_BYTES)
    except FileNotFoundError:
        return Property()
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read, got {error.strerror}; make it readable or remove it"
        ) from None
    lines = text.removeprefix(_BYTE_ORDER_MARK).strip().splitlines()
    line = lines[0].strip() if lines else b""
    found = _NUMBERS.fullmatch(line)
    limits = (_LARGEST_CLASSES, _LARGEST_SIDE, _LARGEST_SIDE)
    digits = [number.lstrip(b"0") for number in found.groups()] if found else []
    if not found or not all(
        0 < len(number) <= len(str(limit)) and int(number) <= limit
        for number, limit in zip(digits, limits, strict=True)
    ):
        raise RecordError(
            f"{path}: the first line is not num_classes,height,width, three whole numbers above 0, "
            f"got {shown(line)}; fix the line or remove the file"
        )
    classes, height, width = (int(number) for number in digits)
    return Property(classes, (height, width), shown(line))
