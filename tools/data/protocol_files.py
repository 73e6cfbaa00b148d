# SPDX-License-Identifier: Apache-2.0
"""Read the pairs of verification protocols from their files.

A file has one of these forms; the option --protocol takes the name in the first column:

lfw    pairs.txt of LFW: "name n1 n2" and "name1 n1 name2 n2" after a line with the numbers of
       folds and pairs; RFW's _pairs.txt and AgeDB's pairs, which lack the line with the numbers
list   "a b 0" or "a b 1", separated by blanks, tabs or commas; AgeDB-30 often has this form
calfw  pairs of CALFW and CPLFW: two lines "image fold" per pair; fold 0 means different people
ytf    splits.txt of YouTube Faces: "split, pair, video 1, video 2, same"
cfp    folder of CFP with Pair_list_F.txt, Pair_list_P.txt, Split/FP/01/same.txt and diff.txt
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation import text_lists
from evaluation.protocols.youtube_faces import SPLIT_FORM, parse_split
from launch.config.printable_text import printable
from tools.data.protocol_pairs import (
    PairLineError,
    Parser,
    ProtocolPair,
    are_numbers,
    interleave_folds,
    split_fields,
)

CFP_KINDS = ("FP", "FF")
"""Pairs of CFP: frontal with profile, and frontal with frontal."""
_LISTS = ("Pair_list_F.txt", "Pair_list_P.txt")
_ANSWERS = {"0": False, "1": True, "false": False, "true": True, "-1": False}
Lines = Sequence[tuple[int, str]]


def read_protocol(
    path: Path, form: str | None = None, cfp_kind: str = CFP_KINDS[0]
) -> list[ProtocolPair]:
    """Read the pairs of a protocol, in the order of its folds.

    Parameters
    ----------
    path
        File of pairs; for CFP the folder ``Protocol``.
    form
        Key of FORMS or "cfp"; None: the first lines decide.
    cfp_kind
        One of CFP_KINDS.

    Raises
    ------
    ValueError
        If the file cannot be read, has another form or holds no pair.
    """
    if path.is_dir():
        if form not in (None, "cfp"):
            raise ValueError(
                f"--protocol: must be cfp for a folder, got {form} for {printable(path)}; name a "
                "file of pairs, or omit --protocol"
            )
        pairs = _read_cfp(path, cfp_kind)
    else:
        lines = read_lines(path)
        name = form or find_form(lines)
        if name not in FORMS:
            known = ", ".join((*FORMS, "cfp"))
            problem = "a file, but cfp needs a folder" if name == "cfp" else "no known form"
            raise ValueError(
                f"{printable(path)}: must hold pairs in one of the forms {known}, got {problem}; "
                f"the first line is {lines[0][1][:80]!r}; correct the file, or name its form with "
                "--protocol"
            )
        try:
            pairs = FORMS[name](lines)
        except PairLineError as error:
            raise ValueError(f"{printable(path)}: {error}; correct the line") from None
    if not pairs:
        raise ValueError(f"{printable(path)}: must hold at least one pair, got none; add pairs")
    return pairs


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return (number, content) of each line of a text file, without blank lines and comments.

    Raises
    ------
    ValueError
        If the file cannot be read, is no UTF-8 text, or has no such lines.
    """
    found = [(number, line) for number, line in text_lists.read_lines(path) if line[0] != "#"]
    if not found:
        raise ValueError(f"{printable(path)}: must hold pairs, got comments only; add pairs")
    return found


def find_form(lines: Lines) -> str:
    """Return the name of the form that the first lines have; "" for an unknown form.

    Up to three lines are examined, because the first one may hold the numbers of LFW's header or
    the names of columns.
    """
    rows = [split_fields(line) for _, line in lines[:3]]
    return next(filter(None, map(_form_of_row, rows)), "")


def _form_of_row(row: Sequence[str]) -> str:
    if parse_split(row):
        return "ytf"
    if _is_lfw(row):
        return "lfw"
    if len(row) == 3 and row[2].lower() in _ANSWERS:
        return "list"
    if len(row) == 2 and are_numbers(row[1:]) and not are_numbers(row[:1]):
        return "calfw"
    return ""


def _is_lfw(row: Sequence[str]) -> bool:
    return (len(row) == 3 and are_numbers(row[1:])) or (
        len(row) == 4 and are_numbers(row[1::2]) and not are_numbers(row[2:3])
    )


def _parse_lfw(lines: Lines) -> list[ProtocolPair]:
    first = split_fields(lines[0][1])
    if len(first) <= 2 and are_numbers(first):
        lines = lines[1:]
    pairs = []
    for number, line in lines:
        row = split_fields(line)
        if not _is_lfw(row):
            raise PairLineError(number, line, '"name n1 n2" or "name1 n1 name2 n2"')
        one, two = (row[0], row[1]), (row[-2] if len(row) == 4 else row[0], row[-1])
        paths = [f"{name}/{name}_{int(index):04d}" for name, index in (one, two)]
        pairs.append(ProtocolPair(paths[0], paths[1], one[0] == two[0], (one[0], two[0])))
    return pairs


def _parse_list(lines: Lines) -> list[ProtocolPair]:
    pairs = []
    for number, line in lines:
        row = split_fields(line)
        if len(row) != 3 or row[2].lower() not in _ANSWERS or not (row[0] and row[1]):
            if number == lines[0][0] and "." not in line:
                continue  # the first line may hold the names of columns
            raise PairLineError(number, line, '"image1 image2 0" or "image1 image2 1"')
        pairs.append(ProtocolPair(row[0], row[1], _ANSWERS[row[2].lower()]))
    return pairs


def _parse_calfw(lines: Lines) -> list[ProtocolPair]:
    same: list[ProtocolPair] = []
    different: list[ProtocolPair] = []
    for index in range(0, len(lines), 2):
        rows = [split_fields(line) for _, line in lines[index : index + 2]]
        if len(rows) != 2 or any(len(row) != 2 or not are_numbers(row[1:]) for row in rows):
            raise PairLineError(*lines[index], 'one of two lines "image fold" per pair')
        pair = ProtocolPair(rows[0][0], rows[1][0], rows[0][1] != "0")
        (same if pair.same else different).append(pair)
    return interleave_folds(same, different)


def _parse_ytf(lines: Lines) -> list[ProtocolPair]:
    pairs: list[tuple[int, ProtocolPair]] = []
    for number, line in lines:
        found = parse_split(split_fields(line))
        if found is None:
            if number == lines[0][0]:
                continue  # the first line may hold the names of columns
            raise PairLineError(number, line, f'"{SPLIT_FORM}"')
        people = found.first.split("/")[0], found.second.split("/")[0]
        pairs.append((found.fold, ProtocolPair(found.first, found.second, found.same, people)))
    return [pair for _, pair in sorted(pairs, key=lambda entry: entry[0])]


FORMS: dict[str, Parser] = {
    "lfw": _parse_lfw,
    "list": _parse_list,
    "calfw": _parse_calfw,
    "ytf": _parse_ytf,
}
"""Form of a file of pairs -> function that parses its lines."""


def _read_cfp(folder: Path, kind: str) -> list[ProtocolPair]:
    root = next((f for f in (folder, folder / "Protocol") if (f / _LISTS[0]).is_file()), None)
    splits = None if root is None else root / "Split" / kind
    if root is None or splits is None or not splits.is_dir():
        raise ValueError(
            f"{printable(folder)}: must be the folder Protocol of CFP with {_LISTS[0]} and "
            f"Split/{kind}, got a folder without them; name that folder or a file of pairs"
        )
    first = _read_cfp_images(root / _LISTS[0])
    second = first if kind == "FF" else _read_cfp_images(root / _LISTS[1])
    pairs: list[ProtocolPair] = []
    for fold in sorted(entry for entry in splits.iterdir() if entry.is_dir()):
        for name, same in (("same.txt", True), ("diff.txt", False)):
            for number, line in read_lines(fold / name):
                row = split_fields(line)
                if len(row) != 2 or row[0] not in first or row[1] not in second:
                    error = PairLineError(number, line, "two numbers of the lists of images")
                    raise ValueError(f"{printable(fold / name)}: {error}; correct the line")
                one, two = first[row[0]], second[row[1]]
                pairs.append(ProtocolPair(one, two, same, (_cfp_person(one), _cfp_person(two))))
    return pairs


def _read_cfp_images(path: Path) -> dict[str, str]:
    """Return a dictionary from the number of each image, as text, to its path."""
    images = {}
    for number, line in read_lines(path):
        row = line.split()
        if len(row) != 2 or not are_numbers(row[:1]):
            error = PairLineError(number, line, "the number and the path of an image")
            raise ValueError(f"{printable(path)}: {error}; correct the line")
        images[row[0]] = row[1]
    return images


def _cfp_person(path: str) -> str:
    """Return the folder above "frontal" or "profile", such as "001"."""
    return path.split("/")[-3] if path.count("/") >= 2 else path
