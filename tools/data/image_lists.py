# SPDX-License-Identifier: Apache-2.0
"""Read lists of images and labels: plain text, .lst of InsightFace and of im2rec, and CSV.

    path label                                        plain; a tab or blanks before the label
    aligned<TAB>path<TAB>label[<TAB>box and points]   InsightFace's face2rec2.py; aligned is 0 or 1
    index<TAB>label[<TAB>labels]<TAB>path             im2rec.py of MXNet
    path,label                                        CSV, with or without a line of column names

The first line of a file decides which format the file has.
"""

from __future__ import annotations

import csv
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alignment.landmark_files import MAX_COORDINATE_PX
from alignment.landmark_lines import parse_list_fields
from launch.config.printable_text import printable
from tools.data.identity_names import sort_names
from tools.data.image_sources import ImageSources

_MAX_LINE_BYTES = 1 << 16
_UNALIGNED = "is marked as not aligned and has no points in the list, got no option --align"
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_WHOLE = re.compile(r"([0-9]{1,18})(\.0*)?")
_PATH_COLUMNS = ("path", "image", "file", "filename", "file_name", "image_path", "name")
_LABEL_COLUMNS = ("label", "identity", "id", "person", "class", "identity_id", "subject")


class ListedImage(NamedTuple):
    """Image of one line of a list."""

    path: str
    label: str
    aligned: bool | None = None
    """Mark in InsightFace's .lst: whether the image is already aligned; None for other lists, which
    have no such marks."""
    points: np.ndarray | None = None
    """Five points of the face in the image, (5, 2), if the list gives them."""


class ListFormat(NamedTuple):
    """Format of a list: its name for messages, and the function that parses one line."""

    name: str
    parse: Callable[[str], ListedImage | None]
    """Return the image of a line, or None if the line does not have the format."""


def read_list(path: Path, root: Path | None = None, *, align: bool = False) -> ImageSources:
    """Read a list of images, and sort the images by identity.

    Images without a usable file are returned as rejected, with the reason.

    If InsightFace's .lst marks an image as not aligned and gives its points, the image will be
    aligned even without ``align``.

    If all labels are whole numbers, the identities are sorted by number.  If not, the labels are
    names, and the identities are sorted by name.  The images of an identity keep the order of the
    list.  A byte order mark, blank lines and Windows line ends are ignored.

    Parameters
    ----------
    path
        The list.
    root
        Folder to which relative paths refer; None: the folder of the list.
    align
        True to align every image that InsightFace's .lst does not mark as already aligned.

    Raises
    ------
    ValueError
        If the list cannot be read, if a line does not have the format of the first line, or if none
        of the listed images can be used.
    """
    images, rejected = _read_images(path)
    root = path.parent if root is None else root
    found: list[tuple[ListedImage, int, int]] = []
    for image in images:
        state = _regular_file(os.path.join(root, image.path))
        if isinstance(state, str):
            rejected.append((image.path, state))
        elif image.aligned is False and image.points is None and not align:
            rejected.append((image.path, _UNALIGNED))
        else:
            found.append((image, state.st_size, state.st_mtime_ns))
    if not found:
        reason = f"; the first one, {printable(rejected[0][0])}, {rejected[0][1]}"
        raise ValueError(
            f"{printable(path)}: must name image files in {printable(root)}, got {len(rejected)} "
            f"paths and no usable file{reason}"
        )
    labels = _normalise([image.label for image, _, _ in found])
    names = sort_names(set(labels))
    numbers = {name: number for number, name in enumerate(names)}
    identities = np.array([numbers[label] for label in labels], dtype=np.int64)
    order = np.argsort(identities, kind="stable")
    unaligned = np.array([_is_unaligned(image, align) for image, _, _ in found], dtype=bool)[order]
    points = _stack_points([found[row][0] for row in order.tolist()]) if unaligned.any() else None
    return ImageSources(
        root=root,
        names=names,
        paths=[found[row][0].path for row in order.tolist()],
        identities=identities[order],
        sizes=np.array([size for _, size, _ in found], dtype=np.int64)[order],
        mtimes_ns=np.array([mtime for _, _, mtime in found], dtype=np.int64)[order],
        unaligned=unaligned if unaligned.any() else None,
        points=points,
        rejected=rejected,
    )


def _is_unaligned(image: ListedImage, align: bool) -> bool:
    return align if image.aligned is None else not image.aligned


def _stack_points(images: list[ListedImage]) -> np.ndarray | None:
    """Return the points of images, float32 (N, 5, 2), NaN for an image without points.

    Return None if no image has points.
    """
    if all(image.points is None for image in images):
        return None
    points = np.full((len(images), 5, 2), np.nan, np.float32)
    for row, image in enumerate(images):
        if image.points is not None:
            points[row] = image.points
    return points


def _read_images(path: Path) -> tuple[list[ListedImage], list[tuple[str, str]]]:
    """Return the images of a list, and pairs (path, reason) of lines that repeat a path."""
    images: list[ListedImage] = []
    repeated: list[tuple[str, str]] = []
    first_lines: dict[str, int] = {}
    chosen: ListFormat | None = None
    for number, line in _read_lines(path):
        if chosen is None:
            chosen = find_format(line, path)
            if chosen is None:
                raise _wrong_line(path, number, line, "a path and a label")
            if chosen.name == "CSV with column names":
                continue
        image = chosen.parse(line)
        if image is None or not image.path or not image.label or "\0" in image.path:
            raise _wrong_line(path, number, line, f"a path and a label in the format {chosen.name}")
        name = os.path.normpath(image.path)
        if name in first_lines:
            repeated.append((image.path, f"is on line {number} and on line {first_lines[name]}"))
            continue
        first_lines[name] = number
        images.append(image)
    if not images:
        raise ValueError(
            f"{printable(path)}: must list at least one image, got none; write one line per image, "
            "with a path and a label"
        )
    return images, repeated


def _wrong_line(path: Path, number: int, line: str, wanted: str) -> ValueError:
    return ValueError(
        f"{printable(path)}: line {number}: must hold {wanted}, got {printable(line[:80])!r}; "
        "correct the line"
    )


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that are not blank, as pairs (number from 1, text)."""
    try:
        with path.open("rb") as file:
            number = 0
            while data := file.readline(_MAX_LINE_BYTES):
                number += 1
                if len(data) == _MAX_LINE_BYTES or b"\0" in data:
                    raise ValueError(
                        f"{printable(path)}: line {number}: must be text of at most "
                        f"{_MAX_LINE_BYTES} bytes, got other data; name a list of images"
                    )
                if number == 1:
                    data = data.removeprefix(b"\xef\xbb\xbf")
                line = os.fsdecode(data).rstrip("\r\n")
                if line.strip():
                    yield number, line
    except OSError as error:
        raise ValueError(
            f"{printable(path)}: cannot be read, got {error.strerror}; name a list of images"
        ) from None


def find_format(line: str, path: Path) -> ListFormat | None:
    """Return the format of a list whose first line is ``line``; None if no format matches."""
    tabs = [part.strip() for part in line.split("\t")]
    if len(tabs) >= 3 and _NUMBER.fullmatch(tabs[0]):
        if tabs[0] in ("0", "1") and not _NUMBER.fullmatch(tabs[1]):
            return ListFormat("InsightFace's .lst", _parse_insightface)
        if _NUMBER.fullmatch(tabs[1]):
            return ListFormat("im2rec's .lst", _parse_im2rec)
    columns = [column.strip().lower() for column in _csv_fields(line)]
    path_column = next((columns.index(name) for name in _PATH_COLUMNS if name in columns), None)
    label_column = next((columns.index(name) for name in _LABEL_COLUMNS if name in columns), None)
    if len(columns) > 1 and path_column is not None and label_column is not None:
        return ListFormat("CSV with column names", _CsvParser(path_column, label_column))
    if path.suffix.lower() == ".csv":
        return ListFormat("CSV", _CsvParser(0, 1)) if len(columns) > 1 else None
    return ListFormat("plain text", _parse_plain) if _parse_plain(line) else None


def _parse_plain(line: str) -> ListedImage | None:
    parts = line.rsplit("\t", 1) if "\t" in line else line.rsplit(None, 1)
    return ListedImage(parts[0].strip(), parts[1].strip()) if len(parts) == 2 else None


def _parse_insightface(line: str) -> ListedImage | None:
    parts = [part.strip() for part in line.split("\t")]
    if len(parts) < 3 or parts[0] not in ("0", "1"):
        return None
    found = parse_list_fields(parts)
    if found is None:
        return None
    if found.points is not None and not (np.abs(found.points) <= MAX_COORDINATE_PX).all():
        return None
    return ListedImage(parts[1], parts[2], parts[0] == "1", found.points)


def _parse_im2rec(line: str) -> ListedImage | None:
    parts = [part.strip() for part in line.split("\t")]
    if len(parts) < 3 or not _NUMBER.fullmatch(parts[1]):
        return None
    return ListedImage(parts[-1], parts[1])


class _CsvParser:
    """Parser of CSV lines; the numbers of the columns of the path and of the label are given."""

    def __init__(self, path_column: int, label_column: int):
        self._path, self._label = path_column, label_column

    def __call__(self, line: str) -> ListedImage | None:
        fields = _csv_fields(line)
        if len(fields) <= max(self._path, self._label):
            return None
        return ListedImage(fields[self._path].strip(), fields[self._label].strip())


def _csv_fields(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _normalise(labels: list[str]) -> list[str]:
    """If all labels are whole numbers, write them without decimals: ``7.000000`` becomes ``7``."""
    numbers = [_WHOLE.fullmatch(label) for label in labels]
    if all(numbers):
        return [str(int(number[1])) for number in numbers if number]
    return labels


def _regular_file(path: str) -> os.stat_result | str:
    """Return the `os.stat` result of a file, or the reason why it is not a regular file."""
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "an impossible name"
        return f"cannot be found, got {reason}"
    return state if stat.S_ISREG(state.st_mode) else "is not a regular file"
