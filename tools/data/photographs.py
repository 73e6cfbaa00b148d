# SPDX-License-Identifier: Apache-2.0
"""Photographs of a folder, and the names of their aligned images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from evaluation.image_files import find_images, is_image_name
from launch.config.printable_text import printable

SUFFIX = ".jpg"


def find_photographs(folder: Path) -> list[str]:
    """Return the paths of the image files in a folder and its subfolders, relative to the folder.

    Raises
    ------
    ValueError
        If the folder does not exist, cannot be listed or contains no image file.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such folder"
        raise ValueError(
            f"{printable(folder)}: must be a folder of photographs, got {what}; correct the path"
        )
    return [os.path.relpath(path, folder) for path in find_images([folder])]


def count_other_files(folder: Path) -> int:
    """Count the files without the suffix of an image format in a folder and its subfolders."""
    return sum(not is_image_name(name) for _, _, files in os.walk(folder) for name in files)


def output_names(paths: Sequence[str]) -> list[str]:
    """Return the path of the aligned image of each photograph, relative to the output folder.

    The suffix becomes ``.jpg``.  If two photographs would get the same name, such as ``a.png`` and
    ``a.jpg``, one of them keeps its suffix in front of ``.jpg``: ``a.png.jpg``.
    """
    kept = {path for path in paths if path.endswith(SUFFIX)}
    folders = {str(parent) for path in paths for parent in Path(path).parents}
    taken = kept | folders
    names = []
    for path in paths:
        name = path if path in kept else _free_name(path, taken)
        taken.add(name)
        names.append(name)
    return names


def _free_name(path: str, taken: set[str]) -> str:
    """Return the first name of a photograph's aligned image that is not taken."""
    endings = chain([SUFFIX], (f".{number}{SUFFIX}" for number in count(2)))
    candidates = chain([os.path.splitext(path)[0] + SUFFIX], (path + ending for ending in endings))
    return next(name for name in candidates if name not in taken)
