# SPDX-License-Identifier: Apache-2.0
"""Find the images of a folder that has one folder per identity."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evaluation.image_files import SUFFIXES
from launch.config.printable_text import printable
from tools.data.identity_names import sort_names

HIDDEN = "hidden files and folders"
OTHER_FILES = "files without a suffix of an image format"
OUTSIDE = "files outside the folders of the identities"
SPECIAL = "special files (pipes, sockets, devices)"
REACHED = "folders that were already found under another path"


@dataclass
class ImageSources:
    """Images to pack, sorted by identity, and the files and folders that were passed over.

    Entry i of ``paths``, ``identities``, ``sizes`` and ``mtimes_ns`` describes image i of N.
    """

    root: Path
    """Folder to which relative paths refer."""
    names: list[str]
    """Names of the identities, in the order of ``sort_names``."""
    paths: list[str]
    identities: np.ndarray
    """Index of the identity in ``names``, int64 (N,), ascending."""
    sizes: np.ndarray
    """File size in bytes, int64 (N,)."""
    mtimes_ns: np.ndarray
    """Modification time in nanoseconds, int64 (N,)."""
    unaligned: np.ndarray | None = None
    """Whether each image must be aligned, bool (N,); None: no image must be aligned."""
    points: np.ndarray | None = None
    """Five points of the face in each image as (x, y) in pixels, float32 (N, 5, 2), NaN where they
    are unknown; None: no points are known."""
    rejected: list[tuple[str, str]] = field(default_factory=list)
    """Pairs (path, reason) of files that should be packed but cannot be used."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """Number of ignored files and folders for each reason: a constant from HIDDEN to REACHED."""

    def __len__(self) -> int:
        return len(self.paths)

    def points_of(self, row: int) -> np.ndarray | None:
        """Return the points of an image, (5, 2); None if they are unknown."""
        if self.points is None or np.isnan(self.points[row, 0, 0]):
            return None
        return self.points[row].astype(np.float64)

    def without_points(self) -> list[str]:
        """Return the paths of the images that must be aligned and whose points are unknown."""
        if self.unaligned is None:
            return []
        rows = np.flatnonzero(self.unaligned).tolist()
        return [self.paths[row] for row in rows if self.points_of(row) is None]


Found = tuple[str, int, int]
"""Path, size in bytes and modification time in nanoseconds of an image file."""


def find_in_folder(folder: Path) -> ImageSources:
    """Find the images in the folders of identities.

    Each folder in ``folder`` is an identity.  Its images may lie in subfolders.  Symbolic links are
    followed, but every folder is searched only once, so the search also ends if links form a loop.

    Raises
    ------
    ValueError
        If a folder cannot be listed, or if no folder of an identity contains an image file.
    """
    search = _Search(folder)
    people: dict[str, list[Found]] = {}
    for name in sort_names(search.identities):
        found = list(search.images_of(name))
        if found:
            people[name] = sorted(found, key=lambda image: image[0].split("/"))
    if not people:
        raise ValueError(
            f"{printable(folder)}: must contain one folder of images per identity, got "
            f"{len(search.identities)} folders without images and {search.passed_over[OUTSIDE]} "
            "files outside them; move the images of each person into a folder of their own"
        )
    names = sort_names(people)
    images = [image for name in names for image in people[name]]
    counts = [len(people[name]) for name in names]
    return ImageSources(
        root=folder,
        names=names,
        paths=[path for path, _, _ in images],
        identities=np.repeat(np.arange(len(names)), counts),
        sizes=np.array([size for _, size, _ in images], dtype=np.int64),
        mtimes_ns=np.array([mtime for _, _, mtime in images], dtype=np.int64),
        rejected=search.rejected,
        passed_over=search.passed_over,
    )


class _Search:
    """Search through the folders of the identities in one folder."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.passed_over: Counter[str] = Counter()
        self.rejected: list[tuple[str, str]] = []
        self.identities: list[str] = []
        # A link inside the folder of one identity may lead to the folder of another identity, or
        # back to ``folder``.  So ``folder`` and the folders of all identities count as searched
        # from the start.  The result then does not depend on the order of the search.
        self._reached = {_inode(os.stat(folder))}
        for entry in _list(str(folder)):
            state = _state(entry)
            if entry.name.startswith("."):
                self.passed_over[HIDDEN] += 1
            elif state is None or not stat.S_ISDIR(state.st_mode):
                self.passed_over[OUTSIDE] += 1
            elif _inode(state) in self._reached:
                self.passed_over[REACHED] += 1
            else:
                self._reached.add(_inode(state))
                self.identities.append(entry.name)

    def images_of(self, name: str) -> Iterator[Found]:
        """Yield the image files of one identity."""
        waiting = [name]
        while waiting:
            folder = waiting.pop()
            for entry in _list(os.path.join(self._folder, folder)):
                path = f"{folder}/{entry.name}"
                if entry.name.startswith("."):
                    self.passed_over[HIDDEN] += 1
                    continue
                state = _state(entry)
                if state is not None and stat.S_ISDIR(state.st_mode):
                    if _inode(state) in self._reached:
                        self.passed_over[REACHED] += 1
                    else:
                        self._reached.add(_inode(state))
                        waiting.append(path)
                elif not entry.name.lower().endswith(SUFFIXES):
                    self.passed_over[OTHER_FILES] += 1
                elif state is None:
                    self.rejected.append((path, "is a link that leads to no file"))
                elif not stat.S_ISREG(state.st_mode):
                    self.passed_over[SPECIAL] += 1
                else:
                    yield path, state.st_size, state.st_mtime_ns


def _list(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(
            f"{printable(folder)}: the folder cannot be listed, got {error.strerror}; name a "
            "folder with read access"
        ) from None


def _state(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return `os.stat` of the file that an entry leads to; None for a broken or circular link."""
    try:
        return entry.stat()
    except OSError:
        return None


def _inode(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino
