# SPDX-License-Identifier: Apache-2.0
"""Files of verification scores: NAME.npz with the cosine of each pair of one or several sets."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from atomic_write import atomic_write

COSINES, ISSAME = ".cosines", ".issame"
"""Suffixes of the names of the two arrays of a set."""
MAX_FILE_BYTES = 1 << 31


class ScoresError(ValueError):
    """Error for a file of scores that cannot be used; the message tells the user what to do."""


class Scores(NamedTuple):
    """Cosines of P pairs, (P,) float64, and whether each pair shows one person, (P,) bool."""

    cosines: np.ndarray
    issame: np.ndarray


def write_scores(
    path: str | os.PathLike[str], scores: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """Write the scores of sets to an .npz file.

    Parameters
    ----------
    scores
        For each set its squared distances (P,) and the array ``issame`` (P,).
    """
    arrays = {}
    for name, (distances, issame) in scores.items():
        arrays[name + COSINES] = 1 - np.asarray(distances, np.float64) / 2
        arrays[name + ISSAME] = np.asarray(issame, bool)
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def read_scores(path: str | os.PathLike[str]) -> dict[str, Scores]:
    """Read the scores of sets from an .npz file.

    Raises
    ------
    ScoresError
        If the file cannot be read, is not a file of scores, or has a score that is not finite.
    """
    cure = "name a file that `python -m evaluation verify --scores` has written"
    try:
        if os.path.getsize(path) > MAX_FILE_BYTES:
            raise ScoresError(f"{path}: must have at most {MAX_FILE_BYTES} bytes, got more; {cure}")
        arrays = np.load(path, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ScoresError(f"{path}: must be an .npz file, got a single array (.npy); {cure}")
        with arrays:
            found = {key: arrays[key] for key in arrays.files if key.endswith((COSINES, ISSAME))}
    except OSError as error:
        raise ScoresError(
            f"{path}: cannot be read, got {error.strerror or error}; {cure}"
        ) from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, MemoryError) as error:
        if isinstance(error, ScoresError):
            raise
        raise ScoresError(
            f"{path}: is not a file of scores, got {type(error).__name__}; {cure}"
        ) from None
    names = [key.removesuffix(COSINES) for key in found if key.endswith(COSINES)]
    if not names:
        raise ScoresError(f"{path}: must hold the scores of a set, got none; {cure}")
    return {name: _check(path, name, found) for name in names}


def _check(path: str | os.PathLike[str], name: str, found: Mapping[str, np.ndarray]) -> Scores:
    cosines, issame = found[name + COSINES], found.get(name + ISSAME)
    if (
        issame is None
        or cosines.ndim != 1
        or cosines.shape != issame.shape
        or cosines.dtype.kind != "f"
        or issame.dtype != np.bool_
        or not np.isfinite(cosines).all()
    ):
        raise ScoresError(
            f"{path}: the set {name!r} must have one finite cosine and one boolean for each pair, "
            f"got {cosines.dtype} {cosines.shape} and "
            f"{'nothing' if issame is None else f'{issame.dtype} {issame.shape}'}; write the file "
            "again"
        )
    if issame.all() or not issame.any():
        raise ScoresError(
            f"{path}: the set {name!r} must have same-person and different-person pairs, got "
            "pairs of one kind; name another file"
        )
    return Scores(cosines.astype(np.float64), issame)
