# SPDX-License-Identifier: Apache-2.0
"""Find the person of each image of a verification set, or else groups of linked images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from atomic_write import atomic_write
from evaluation.distinct import find_distinct
from evaluation.pairs import Pairs, PairsError, name_image
from regular_file import open_regular

MAX_LINE_BYTES = 1024


def people_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of NAME.people.txt beside the verification set NAME.bin."""
    return Path(path).with_suffix(".people.txt")


def write_people(path: str | os.PathLike[str], names: Iterable[object]) -> None:
    """Write NAME.people.txt beside the verification set NAME.bin.

    Parameters
    ----------
    path
        File of the set, NAME.bin.
    names
        Name or number of the person of each image, two per pair, in the order of the pairs.
    """
    with atomic_write(people_path(path), "w") as file:
        file.writelines(f"{name}\n" for name in names)


class People(NamedTuple):
    """People or groups of the images of a verification set of P pairs.

    ``numbers`` has the index of each image's person or group, from 0, (2 P,) int.  ``kind`` is
    "people" if a file names the person of each image.  ``kind`` is "groups" if only links between
    images are known: one person may then be in several groups.
    """

    numbers: np.ndarray
    kind: Literal["people", "groups"]


def find_people(pairs: Pairs) -> People:
    """Return the people listed in NAME.people.txt beside NAME.bin, or else groups.

    If NAME.people.txt does not exist, the function returns the groups that `find_groups` finds.

    Raises
    ------
    PairsError
        If the file exists and `read_people` refuses the file.
    """
    path = people_path(pairs.path)
    if os.path.lexists(path):
        return People(read_people(path, pairs.issame), "people")
    return People(find_groups(pairs), "groups")


def read_people(path: Path, issame: np.ndarray) -> np.ndarray:
    """Read the person of each image of P pairs; return indices of the people, (2 P,) int.

    Parameters
    ----------
    path
        UTF-8 text file with one line per image, two lines per pair, in the order of the pairs.  A
        line is any name of the person on the image; equal lines name the same person.
    issame
        True for each pair that shows one person, (P,) bool.

    Raises
    ------
    PairsError
        If the file cannot be read, if the number of lines is not 2 P, if a line is empty, or if
        the two lines of a pair contradict ``issame``.
    """
    names = read_names(path, 2 * len(issame), "person")
    found: dict[str, int] = {}
    numbers = np.array([found.setdefault(name, len(found)) for name in names])
    wrong = np.flatnonzero((numbers[0::2] == numbers[1::2]) != issame)
    if len(wrong):
        pair = int(wrong[0])
        one, two = names[2 * pair : 2 * pair + 2]
        raise PairsError(
            f"{path}: lines {2 * pair + 1} and {2 * pair + 2}: must name "
            f"{'one person' if issame[pair] else 'two people'}, as pair {pair} of the set says, "
            f"got {one[:60]!r} and {two[:60]!r}; make the file again, or remove the file"
        )
    return numbers


def read_names(path: Path, count: int, what: str) -> Sequence[str]:
    """Read a text file with a name for each of ``count`` images; return the names.

    Parameters
    ----------
    what
        Noun for what a line names, such as "person".

    Raises
    ------
    PairsError
        If the file cannot be read, does not have ``count`` lines, or has an empty line.
    """
    names = _read_lines(path, count)
    for index, name in enumerate(names):
        if not name:
            raise PairsError(
                f"{path}: line {index + 1}: must name the {what} of {name_image(index)}, got an "
                "empty line; write one name per image"
            )
    return names


def _read_lines(path: Path, count: int) -> Sequence[str]:
    """Read a text file of ``count`` lines; return the lines without surrounding white space."""
    limit = MAX_LINE_BYTES * count
    try:
        with open_regular(path) as file:
            data = file.read(limit + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise PairsError(
            f"{path}: cannot be read, got {error.strerror!r}; correct the file, or remove the file"
        ) from None
    except UnicodeDecodeError as error:
        if len(data) <= limit:
            raise PairsError(
                f"{path}: must be UTF-8 text, got byte {data[error.start]:#04x} at offset "
                f"{error.start}; make the file again, or remove the file"
            ) from None
    if len(data) > limit:
        raise PairsError(
            f"{path}: must have at most {MAX_LINE_BYTES} bytes per image, got more than {limit} "
            f"bytes for {count} images; make the file again, or remove the file"
        )
    lines = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if len(lines) != count:
        raise PairsError(
            f"{path}: must have two lines per pair, {count} lines for {count // 2} pairs, got "
            f"{len(lines)} lines; make the file again, or remove the file"
        )
    return lines


def find_groups(pairs: Pairs) -> np.ndarray:
    """Group the linked images of P pairs; return the index of each image's group, (2 P,) int.

    Two images are linked if they are identical or form a same-person pair.  Images that are linked,
    directly or through a chain of images, are one group.  A person whose images are not all linked
    is in several groups.
    """
    first, numbers = find_distinct(pairs.images)
    parent = list(range(len(first)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for pair in np.flatnonzero(pairs.issame):
        parent[root(numbers[2 * pair])] = root(numbers[2 * pair + 1])
    found: dict[int, int] = {}
    return np.array([found.setdefault(root(number), len(found)) for number in numbers])
