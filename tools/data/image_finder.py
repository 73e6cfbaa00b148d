# SPDX-License-Identifier: Apache-2.0
"""Find the image files that a verification protocol names, in one folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from evaluation.image_files import SUFFIXES, find_images

Key = tuple[str, ...]


class ImageFinder:
    """Image files of a folder, found by the names of a protocol.

    A name in the protocol may begin with folders that ``folder`` does not contain.  Its suffix may
    be missing, or differ from the suffix of the file: ``../Data/Images/001/frontal/01.jpg`` finds
    ``001/frontal/01.png``.  For the name of a folder of frames, such as a video of YouTube Faces,
    the middle frame is found.  If no path fits, the file name without its suffix is searched in all
    subfolders.  A file with that name is found if it is the only one.

    Parameters
    ----------
    folder
        Folder that is searched with its subfolders.

    Raises
    ------
    ValueError
        If the folder does not exist or contains no image file.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._exact: dict[Key, Path] = {}
        self._stems: dict[Key, Path] = {}
        self._names: dict[str, Path | None] = {}
        self._frames: dict[Key, list[Path]] = {}
        for path in find_images([folder]):
            key = Path(os.path.relpath(path, folder)).parts
            stem = (*key[:-1], _without_suffix(key[-1]))
            self._exact[key] = path
            self._stems.setdefault(stem, path)
            self._frames.setdefault(key[:-1], []).append(path)
            known = self._names.setdefault(stem[-1], path)
            if known != path:
                self._names[stem[-1]] = None  # ambiguous, because several files have this name

    def find(self, name: str) -> Path | None:
        """Return the image file that a name in a protocol means; None if no file fits."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        key = tuple(part for part in parts if part not in ("/", "//", ".", ".."))
        for start in range(len(key)):
            rest = key[start:]
            stem = (*rest[:-1], _without_suffix(rest[-1]))
            found = self._exact.get(rest) or self._stems.get(stem) or self._middle_frame(rest)
            if found:
                return found
        return self._names.get(_without_suffix(key[-1])) if key else None

    def _middle_frame(self, folder: Key) -> Path | None:
        frames = self._frames.get(folder)
        return frames[len(frames) // 2] if frames else None


def _without_suffix(name: str) -> str:
    """Return a file name without the suffix of an image format; other dots belong to the name."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name
