# SPDX-License-Identifier: Apache-2.0
"""Pairs of a verification protocol, as the files of the protocol name them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from typing import NamedTuple

FOLDS = 10
_AGEDB = re.compile(r"\d+_(.+)_\d+_[fm]")  # number, name, age and sex
_NUMBERED = re.compile(r"(.+?)[_-]?\d+")  # LFW: name and number


class ProtocolPair(NamedTuple):
    """Pair of a protocol."""

    one: str
    """Path of the first image, or of the folder of the first video, as the protocol names it."""
    two: str
    same: bool
    """True if both images or videos show one person."""
    people: tuple[str, str] | None = None
    """Names of the two people; None if the protocol does not name them."""


def name_people(pairs: Sequence[ProtocolPair]) -> list[str] | None:
    """Return the person of each image, two per pair in the order of the pairs.

    The protocol may name the people.  Otherwise the people are read from the paths, by the first of
    these rules that contradicts no pair: the name in an AgeDB file name (``0_Name_35_f.jpg``), the
    folder of the image, the file name without its number (``Name_0001.jpg``).

    Outputs
    -------
    2 P names for P pairs, or None if the people of the pairs cannot be found.
    """
    if all(pair.people is not None for pair in pairs):
        return [name for pair in pairs for name in pair.people or ()]
    for rule in (_agedb_name, _folder_name, _unnumbered_name):
        names = [rule(path) for pair in pairs for path in (pair.one, pair.two)]
        found = [name for name in names if name]
        if len(found) == len(names) and _agree(pairs, found):
            return found
    return None


def _agree(pairs: Sequence[ProtocolPair], names: Sequence[str]) -> bool:
    sides = zip(names[0::2], names[1::2], strict=True)
    return all(pair.same == (one == two) for pair, (one, two) in zip(pairs, sides, strict=True))


def _agedb_name(path: str) -> str | None:
    match = _AGEDB.fullmatch(PurePosixPath(path).stem)
    return match[1] if match else None


def _folder_name(path: str) -> str | None:
    return PurePosixPath(path).parent.name or None


def _unnumbered_name(path: str) -> str | None:
    match = _NUMBERED.fullmatch(PurePosixPath(path).stem)
    return match[1] if match else None


def interleave_folds(*lists: Sequence[ProtocolPair]) -> list[ProtocolPair]:
    """Join lists of pairs so that each of ten consecutive folds has a tenth of every list."""
    ordered: list[ProtocolPair] = []
    for fold in range(FOLDS):
        for pairs in lists:
            first, last = (len(pairs) * (fold + step) // FOLDS for step in (0, 1))
            ordered += pairs[first:last]
    return ordered


def unbalanced_folds(same: Sequence[bool]) -> int:
    """Divide pairs into ten consecutive folds; count the folds with pairs of only one kind.

    The two kinds are pairs of one person and pairs of two people.
    """
    edges = [len(same) * fold // FOLDS for fold in range(FOLDS + 1)]
    folds = [same[first:last] for first, last in pairwise(edges)]
    return sum(len(set(fold)) == 1 for fold in folds)


Parser = Callable[[Sequence[tuple[int, str]]], "list[ProtocolPair]"]
"""Function from numbered lines to pairs; it raises `PairLineError` for a line of another form."""


class PairLineError(ValueError):
    """Error for a line that does not have the form of its protocol.

    Parameters
    ----------
    number
        Number of the line, from 1.
    line
        Content of the line.
    form
        Form that the line must have.
    """

    def __init__(self, number: int, line: str, form: str):
        super().__init__(f"line {number}: must be {form}, got {line[:80]!r}")


def split_fields(line: str) -> list[str]:
    """Split a line at tabs if it has any, else at commas if it has any, else at blanks."""
    for separator in ("\t", ","):
        if separator in line:
            return [field.strip() for field in line.strip().split(separator)]
    return line.split()


def are_numbers(fields: Iterable[str]) -> bool:
    """Return whether all fields are whole numbers of at most nine digits."""
    return all(field.isascii() and field.isdecimal() and len(field) <= 9 for field in fields)
