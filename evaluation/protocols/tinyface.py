# SPDX-License-Identifier: Apache-2.0
"""TinyFace: identification of low-resolution faces in a gallery with distractors.

The folder ``Testing_Set`` has the image folders ``Probe``, ``Gallery_Match`` and
``Gallery_Distractor``, and two MATLAB files that name the person of each probe and of each gallery
image.

Cheng, Zhu and Gong, "Low-Resolution Face Recognition", ACCV 2018.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.text_lists import ListError, check_file

PROBE, GALLERY, DISTRACTOR = "Probe", "Gallery_Match", "Gallery_Distractor"
RANKS = (1, 5, 10, 20)
MAX_FILE_BYTES = 1 << 22
"""Largest size of a MATLAB file, 4 MiB: compressed variables may expand a thousandfold."""


@dataclass(frozen=True)
class TinyFaceLists:
    """Images of TinyFace, as paths folder/image, and the people of the probes and the gallery.

    Parameters
    ----------
    probes, gallery, distractors
        Paths, for example "Probe/100_1.jpg".
    probe_people, gallery_people
        ID of each image's person, (number of images,) int.
    """

    probes: list[str]
    gallery: list[str]
    distractors: list[str]
    probe_people: np.ndarray
    gallery_people: np.ndarray


def read_tinyface(folder: str | os.PathLike[str]) -> TinyFaceLists:
    """Read the lists of a folder ``Testing_Set``.

    Raises
    ------
    ListError
        If a list cannot be read, a probe's person is not in the gallery, or there are no
        distractors.
    """
    root = Path(folder)
    gallery, gallery_people = read_people(
        root / "gallery_match_img_ID_pairs.mat", "gallery_set", "gallery_ids"
    )
    path = root / "probe_img_ID_pairs.mat"
    probes, probe_people = read_people(path, "probe_set", "probe_ids")
    absent = np.flatnonzero(~np.isin(probe_people, gallery_people))
    if len(absent):
        raise ListError(
            f"{path}: each probe's person must be in the gallery, got person "
            f"{probe_people[absent[0]]} of {probes[absent[0]]!r} ({len(absent)} of {len(probes)} "
            "probes); unpack TinyFace again"
        )
    try:
        names = sorted(entry.name for entry in os.scandir(root / DISTRACTOR) if entry.is_file())
    except OSError as error:
        raise ListError(
            f"{root / DISTRACTOR}: the folder of the distractors cannot be listed, got "
            f"{error.strerror!r}; name the folder Testing_Set of TinyFace"
        ) from None
    distractors = [name for name in names if not name.startswith(".")]
    if not distractors:
        raise ListError(
            f"{root / DISTRACTOR}: must contain images, got none; unpack TinyFace again"
        )
    return TinyFaceLists(
        [f"{PROBE}/{name}" for name in probes],
        [f"{GALLERY}/{name}" for name in gallery],
        [f"{DISTRACTOR}/{name}" for name in distractors],
        probe_people,
        gallery_people,
    )


def read_people(path: Path, names_key: str, people_key: str) -> tuple[list[str], np.ndarray]:
    """Read the image names and the IDs of people in a MATLAB file; return names (N,) and IDs (N,).

    Parameters
    ----------
    names_key
        Variable with a cell array of N image names.
    people_key
        Variable with N integers, the ID of each image's person.

    Raises
    ------
    ListError
        If the file is no MATLAB 5 file, or a variable is missing or has a wrong type or length.
    """
    from scipy.io import loadmat

    check_file(path, MAX_FILE_BYTES)
    try:
        content = loadmat(path, variable_names=[names_key, people_key])
    # scipy raises many kinds of errors for damaged files.
    except Exception as error:
        raise ListError(
            f"{path}: must be a MATLAB 5 file, got {str(error)[:100]!r}; unpack TinyFace again"
        ) from None
    for key in (names_key, people_key):
        if key not in content:
            raise ListError(
                f"{path}: must have the variable {key!r}, got none of that name; unpack TinyFace "
                "again"
            )
    names = [_text(path, names_key, cell) for cell in np.ravel(content[names_key])]
    people = np.ravel(content[people_key])
    if len(names) != len(people) or not len(names):
        raise ListError(
            f"{path}: {names_key} and {people_key} must have the same number of entries, at least "
            f"1, got {len(names)} and {len(people)}; unpack TinyFace again"
        )
    integers = _integers(path, people_key, people)
    repeated = [name for name in set(names) if names.count(name) > 1] if _repeats(names) else []
    if repeated:
        raise ListError(
            f"{path}: each image must be listed once, got {min(repeated)!r} several times; unpack "
            "TinyFace again"
        )
    return names, integers


def _repeats(names: list[str]) -> bool:
    return len(set(names)) != len(names)


def _integers(path: Path, key: str, people: np.ndarray) -> np.ndarray:
    if people.dtype.kind not in "iuf" or not np.isfinite(people.astype(float)).all():
        raise ListError(
            f"{path}: {key} must hold integers, got {people.dtype}; unpack TinyFace again"
        )
    numbers = people.astype(np.int64)
    if (numbers != people).any() or (numbers < 0).any():
        raise ListError(
            f"{path}: {key} must hold integers from 0, got other numbers; unpack TinyFace again"
        )
    return numbers


def _text(path: Path, key: str, cell: Any) -> str:
    found = np.ravel(cell)
    text = str(found[0]) if len(found) == 1 and found.dtype.kind == "U" else ""
    if not text or "/" in text or text.startswith("."):
        raise ListError(
            f"{path}: {key} must hold file names, got {str(cell)[:60]!r}; unpack TinyFace again"
        )
    return text
