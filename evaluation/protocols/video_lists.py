# SPDX-License-Identifier: Apache-2.0
"""Lists of images and videos as in the ICCV 2019 lightweight face recognition challenge.

``filelist.txt`` has one image (Trillion Pairs track) or one folder of frames (iQIYI-VID track) per
line.  Fields after the first are ignored.  The embedding of each frame is scaled to length 1; the
embedding of a video is the sum over its frames, also scaled to length 1.  A submission is one
OpenCV matrix with the embeddings in the order of the list.

Deng et al., "Lightweight Face Recognition Challenge", ICCV Workshops 2019.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from evaluation.all_pairs import UNKNOWN_PERSON
from evaluation.image_files import SUFFIXES
from evaluation.text_lists import ListError, bad_line, read_lines

FARS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
NOBODY = ("-", "-1")
"""Names that stand for an unknown person."""


def read_entries(path: str | os.PathLike[str]) -> list[str]:
    """Read a list of images and videos; return the first field of each line.

    Raises
    ------
    ListError
        If the file cannot be read, an entry is no relative path, or two entries are the same.
    """
    found: dict[str, int] = {}
    for number, line in read_lines(path):
        entry = _normalise(line.split()[0])
        if not entry:
            raise bad_line(
                path,
                number,
                f"must begin with a relative path, got {line[:80]!r}",
                "correct the line",
            )
        if entry in found:
            raise bad_line(
                path,
                number,
                f"must differ from all other lines, got {entry[:80]!r} as on line {found[entry]}",
                "remove one of the two lines",
            )
        found[entry] = number
    return list(found)


def _normalise(path: str) -> str:
    """Remove a leading "./" and final slashes from a relative path; return "" for other paths.

    The result is also "" if a part of the path is empty, "." or "..".
    """
    parts = path.removeprefix("./").rstrip("/").split("/")
    return "/".join(parts) if all(parts) and {".", ".."}.isdisjoint(parts) else ""


def is_image(entry: str) -> bool:
    """Return whether an entry is an image file; otherwise it is a folder of frames."""
    return entry.lower().endswith(SUFFIXES)


def read_people(path: str | os.PathLike[str], count: int) -> np.ndarray:
    """Read the person of each entry; return indices from 0, or UNKNOWN_PERSON, (count,) int64.

    Parameters
    ----------
    path
        Text file with one name per line; "-" or "-1" stands for an unknown person.

    Raises
    ------
    ListError
        If the file cannot be read or does not have `count` lines.
    """
    numbers: dict[str, int] = {}
    people = [
        UNKNOWN_PERSON if name in NOBODY else numbers.setdefault(name, len(numbers))
        for _, name in read_lines(path)
    ]
    if len(people) != count:
        raise ListError(
            f"{os.fspath(path)}: must have one name for each of the {count} entries of the list, "
            f"got {len(people)} names; make the list again"
        )
    return np.array(people, np.int64)


def read_labelled_pairs(
    path: str | os.PathLike[str], entries: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read pairs of entries; a line names two entries, then 1 for one person or 0 for two.

    Outputs
    -------
    Positions in `entries` of the first and of the second entry of each pair, (P,) int64 each, and
    True for a pair of one person, (P,) bool.

    Raises
    ------
    ListError
        If the file cannot be read, a line is malformed, or all labels are the same.
    """
    positions: Mapping[str, int] = {entry: index for index, entry in enumerate(entries)}
    values = array("q")
    for number, line in read_lines(path):
        words = line.split()
        if len(words) != 3 or words[2] not in ("0", "1"):
            raise bad_line(
                path,
                number,
                f"must be two entries followed by the label 0 or 1, got {line[:80]!r}",
                "correct the line",
            )
        for word in words[:2]:
            if _normalise(word) not in positions:
                raise bad_line(
                    path,
                    number,
                    f"must name entries of the list, got {word[:80]!r}",
                    "correct the line",
                )
        values.extend([*(positions[_normalise(word)] for word in words[:2]), int(words[2])])
    table = np.frombuffer(values, np.int64).reshape(-1, 3)
    same = table[:, 2] == 1
    if same.all() or not same.any():
        raise ListError(
            f"{os.fspath(path)}: must have pairs with 0 and pairs with 1, got one label only; make "
            "the list again"
        )
    return table[:, 0], table[:, 1], same


def assign_frames(names: Iterable[object], entries: Sequence[str]) -> np.ndarray:
    """Return for each frame the position of its entry in `entries`, or -1 if there is none, (N,).

    A frame with the name "/data/Ann/1/7.jpg" belongs to the video entry "Ann/1", and the image
    "/data/a/7.jpg" to the image entry "a/7.jpg".
    """
    positions = {entry: index for index, entry in enumerate(entries)}
    depths = sorted({entry.count("/") + 1 for entry in entries}, reverse=True)
    return np.array([_entry_of(str(name), positions, depths) for name in names], np.int64)


def _entry_of(name: str, positions: Mapping[str, int], depths: Sequence[int]) -> int:
    parts = name.split("/")
    for depth in depths:
        image, video = "/".join(parts[-depth:]), "/".join(parts[-depth - 1 : -1])
        position = positions.get(image, positions.get(video, -1))
        if position >= 0:
            return position
    return -1
