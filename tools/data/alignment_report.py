# SPDX-License-Identifier: Apache-2.0
"""Report of an alignment: a CSV file, a contact sheet, and lines for the terminal."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from alignment.aligner import STATUSES
from atomic_write import atomic_write
from evaluation.image_files import CONTACT_SHEET
from launch.config.printable_text import printable
from tools.data.contact_sheet import choose_tiles, draw_contact_sheet
from tools.data.folder_alignment import UNREADABLE, WRITTEN, Row

LIST = "alignment.csv"
SHOWN_FILES = 10
_COLUMNS = ("path", "status", "image", "faces", "score", "side_px", "sharpness", "reason")
_POINT_COLUMNS = [f"{axis}{number}" for number in range(1, 6) for axis in "xy"]


def write_list(path: Path, rows: Sequence[Row]) -> None:
    """Write a CSV file with a row for each photograph.

    A row has the path of the photograph, its status, the path of its aligned image, measurements of
    the face, the reason why the file is unreadable, and the coordinates of the five points.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*_COLUMNS, *_POINT_COLUMNS])
    for row in rows:
        points = np.ravel(row.get("points") or [""] * 10).tolist()
        writer.writerow([*(row.get(column, "") for column in _COLUMNS), *points])
    with atomic_write(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def write_contact_sheet(out: Path, rows: Sequence[Row]) -> None:
    """Write a contact sheet of at most 144 aligned images, evenly spaced over all of them."""
    images = [row["image"] for row in rows if row["status"] in WRITTEN]
    tiles = choose_tiles(len(images))

    def read(number: int) -> np.ndarray | None:
        return cv2.imdecode(np.fromfile(out / images[number], np.uint8), cv2.IMREAD_COLOR)

    title = f"{len(tiles)} of {len(images)} aligned images"
    with atomic_write(out / CONTACT_SHEET) as file:
        file.write(draw_contact_sheet(title, tiles, read))


def describe(rows: Sequence[Row]) -> Iterator[str]:
    """Yield lines with the number of photographs of each result, and with the first rejected files.

    The number of aligned photographs has no line.
    """
    counts = Counter(row["status"] for row in rows)
    for status, text in STATUSES.items():
        if counts[status] and status not in WRITTEN[:1]:
            yield f"{counts[status]} photographs {text}"
    if counts[UNREADABLE]:
        yield f"{counts[UNREADABLE]} unreadable files"
    several = sum(row.get("faces", 0) > 1 for row in rows)
    if several:
        yield (
            f"{several} photographs with several faces; a large face near the centre of each is "
            "used"
        )
    rejected = [row for row in rows if row["status"] not in WRITTEN]
    for row in rejected[:SHOWN_FILES]:
        reason = row.get("reason") or f"is a photograph {STATUSES[row['status']]}"
        yield f"left out: {printable(row['path'])}: {printable(reason)}"
    if len(rejected) > SHOWN_FILES:
        yield f"left out: {len(rejected)} files; {LIST} lists all"
