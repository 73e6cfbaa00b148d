# SPDX-License-Identifier: Apache-2.0
"""Lists of IJB-B and IJB-C in the layout of InsightFace's folder ``meta``.

Maze et al., "IARPA Janus Benchmark - C: Face Dataset and Protocol", ICB 2018.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.text_lists import (
    ListError,
    bad_line,
    parse_integer,
    parse_integers,
    parse_number,
    read_integers,
    read_lines,
)

SUBSETS = {"ijbb": ("IJBB", ("S1", "S2")), "ijbc": ("IJBC", ("G1", "G2"))}
"""For IJB-B and for IJB-C, the name of the folder and the names of the two galleries."""
LANDMARKS = 5
MAX_COORDINATE_PIXELS = 1e5
"""Largest absolute value of a landmark's coordinate."""
MAX_SCORE = 1e4
"""Largest accepted score of a face detector."""


@dataclass(frozen=True)
class Faces:
    """The N faces of IJB-B or of IJB-C, in the order of the lists.

    Parameters
    ----------
    names
        File name of each face, for example "1.jpg".
    templates, media
        ID of each face's template, and ID of its medium (image or video), (N,) int64 each.
    landmarks
        Coordinates (x, y), in pixels, of both eyes, the nose and both corners of the mouth,
        (N, 5, 2) float32.
    scores
        Score of the face detector for each face, (N,) float32.
    """

    names: list[str]
    templates: np.ndarray
    media: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class TemplatePairs:
    """P pairs of templates.

    Parameters
    ----------
    first, second
        IDs of the first and of the second template of each pair, (P,) int64 each.
    same
        True for a pair of one person, (P,) bool.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


def find_meta(folder: str | os.PathLike[str], subset: str) -> Path:
    """Return the folder of the lists: FOLDER/meta, or else FOLDER/IJBB/meta or FOLDER/IJBC/meta.

    Raises
    ------
    ListError
        If there is no such folder.
    """
    root = Path(folder)
    for path in (root / "meta", root / SUBSETS[subset][0] / "meta"):
        if path.is_dir():
            return path
    raise ListError(
        f"{root}: must contain the folder meta or {SUBSETS[subset][0]}/meta, got neither of them; "
        "name the folder that contains the lists of InsightFace"
    )


def read_faces(meta: Path, subset: str) -> Faces:
    """Read the faces from ``<subset>_face_tid_mid.txt`` and ``<subset>_name_5pts_score.txt``.

    Raises
    ------
    ListError
        If a file cannot be read, a line is malformed, or the files name different faces.
    """
    names, numbers = _read_templates(meta / f"{subset}_face_tid_mid.txt")
    path = meta / f"{subset}_name_5pts_score.txt"
    values = np.empty((len(names), 2 * LANDMARKS + 1))
    count = 0
    for number, line in read_lines(path):
        words = line.split()
        if len(words) != 2 * LANDMARKS + 2:
            raise bad_line(
                path,
                number,
                f"must have {2 * LANDMARKS + 2} values (name, 5 times x and y, score), got "
                f"{len(words)}",
                "correct the line",
            )
        if count >= len(names) or words[0] != names[count]:
            other = "no face" if count >= len(names) else repr(names[count])
            raise bad_line(
                path,
                number,
                f"must name the face of the same line in {subset}_face_tid_mid.txt, {other}, got "
                f"{words[0][:60]!r}",
                "make the lists again",
            )
        values[count] = [parse_number(path, number, word, "each value") for word in words[1:]]
        _check_face(path, number, values[count])
        count += 1
    if count != len(names):
        raise ListError(
            f"{path}: must have {len(names)} faces as {subset}_face_tid_mid.txt has, got {count}; "
            "make the lists again"
        )
    landmarks = values[:, :-1].reshape(-1, LANDMARKS, 2).astype(np.float32)
    return Faces(names, numbers[:, 0], numbers[:, 1], landmarks, values[:, -1].astype(np.float32))


def _check_face(path: Path, number: int, values: np.ndarray) -> None:
    if not 0 <= values[-1] <= MAX_SCORE:
        raise bad_line(
            path,
            number,
            f"the score must be from 0 to {MAX_SCORE:g}, got {values[-1]:g}",
            "detect the face again",
        )
    if np.abs(values[:-1]).max() > MAX_COORDINATE_PIXELS:
        raise bad_line(
            path,
            number,
            f"absolute values of coordinates must be at most {MAX_COORDINATE_PIXELS:g} pixels, got "
            f"{np.abs(values[:-1]).max():g}",
            "detect the face again",
        )


def _read_templates(path: Path) -> tuple[list[str], np.ndarray]:
    names: list[str] = []
    numbers: list[list[int]] = []
    for number, line in read_lines(path):
        name, *words = line.split()
        numbers.append(parse_integers(path, number, words, ("template", "medium")))
        if "/" in name or name.startswith("."):
            raise bad_line(
                path, number, f"must begin with a file name, got {name[:60]!r}", "correct the line"
            )
        names.append(name)
    return names, np.array(numbers, np.int64)


def read_template_pairs(meta: Path, subset: str) -> TemplatePairs:
    """Read the 1:1 pairs from ``<subset>_template_pair_label.txt``.

    Raises
    ------
    ListError
        If the file cannot be read or a line is malformed; a label must be 0 or 1.
    """
    path = meta / f"{subset}_template_pair_label.txt"
    columns = ("template 1", "template 2", "label")
    found = read_integers(path, columns)
    if not np.isin(found[:, 2], (0, 1)).all():
        for number, line in read_lines(path):
            label = parse_integers(path, number, line.split(), columns)[2]
            if label not in (0, 1):
                raise bad_line(
                    path, number, f"the label must be 0 or 1, got {label}", "correct the line"
                )
    return TemplatePairs(found[:, 0].copy(), found[:, 1].copy(), found[:, 2] == 1)


def read_subjects(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the templates of a gallery or of the probes from a .csv file of the 1:N protocol.

    Each line stands for an image, and begins with the ID of its template and the ID of its subject.
    The first line may have headings.

    Outputs
    -------
    IDs of the T templates in ascending order, (T,) int64, and of their subjects, (T,) int64.

    Raises
    ------
    ListError
        If the file cannot be read, a line is malformed, or a template has two subjects.
    """
    subjects: dict[int, int] = {}
    for count, (number, line) in enumerate(read_lines(path)):
        words = [word.strip() for word in line.split(",")]
        if not count and not words[0].isdecimal():
            continue
        if len(words) < 2:
            raise bad_line(
                path,
                number,
                f"must begin with TEMPLATE_ID,SUBJECT_ID, got {line[:60]!r}",
                "correct the line",
            )
        template = parse_integer(path, number, words[0], "the template")
        subject = parse_integer(path, number, words[1], "the subject")
        if subject < 0:
            raise bad_line(
                path, number, f"the subject must be at least 0, got {subject}", "correct the line"
            )
        if subjects.setdefault(template, subject) != subject:
            raise bad_line(
                path,
                number,
                f"template {template} must have one subject, got {subject} and "
                f"{subjects[template]}",
                "correct the line",
            )
    if not subjects:
        raise ListError(
            f"{path}: must list templates below the headings, got none; make the list again"
        )
    templates = np.array(sorted(subjects), np.int64)
    return templates, np.array([subjects[int(t)] for t in templates], np.int64)
