# SPDX-License-Identifier: Apache-2.0
"""Check the output folder of a command before the command starts its work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from launch.config.printable_text import printable

# A killed command may leave two kinds of names in its output folder.  Folders of temporary files
# begin with one of _LEFTOVER_STARTS; files of atomic_write begin with a dot and end with _PART.
_LEFTOVER_STARTS, _PART = (".shuffle-", ".unfinished-set"), ".part"


def check_output(out: Path, sources: Iterable[Path], own: Sequence[str] = ()) -> None:
    """Check that a command may write to its output folder; write nothing.

    Parameters
    ----------
    out
        Folder that does not exist, is empty, or holds only what a killed command left.
    sources
        Files and folders that the command reads; none of them may be or contain ``out``.
    own
        Names that ``out`` may contain, because an earlier run of the command wrote these files.

    Raises
    ------
    ValueError
        If ``out`` cannot be used.
    """
    for source in sources:
        if _is_inside(out, source):
            raise ValueError(
                f"OUT: must not be in the source {printable(source)}, got {printable(out)}; choose "
                "another folder"
            )
    if not os.path.lexists(out):
        parent = next(folder for folder in out.absolute().parents if folder.exists())
        _check_writable(parent)
        return
    if not out.is_dir():
        raise ValueError(
            f"{printable(out)}: must be a folder, got a file or a broken link; choose another name"
        )
    _check_writable(out)
    names = sorted(set(_list(out)) - set(own) - set(leftovers(out)))
    if names:
        raise ValueError(
            f"{printable(out)}: must be an empty folder or a new name, got a folder with "
            f"{printable(names[0])}{' and more' * (len(names) > 1)}; choose another folder"
        )


def make_output(out: Path) -> None:
    """Create the output folder, and remove what a killed command left there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in leftovers(out):
            path = out / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except OSError as error:
        raise ValueError(
            f"{printable(out)}: cannot be written, got {error.strerror}; choose another folder"
        ) from None


@contextmanager
def explained_writing(out: Path) -> Iterator[None]:
    """Turn an OSError that a ``with`` block raises into a ValueError that names ``out``."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{printable(out)}: cannot be written, got {error.strerror or error}; remove the cause "
            "and repeat the command"
        ) from None


def leftovers(out: Path) -> list[str]:
    """Return the names in a folder that only a killed command can have left."""
    return [
        name
        for name in _list(out)
        if (name.startswith(".") and name.endswith(_PART)) or name.startswith(_LEFTOVER_STARTS)
    ]


def _list(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise ValueError(
            f"{printable(folder)}: cannot be listed, got {error.strerror}; choose another folder"
        ) from None


def _check_writable(folder: Path) -> None:
    is_folder = folder.is_dir()
    if not is_folder or not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(
            f"{printable(folder)}: must be a folder with write access, got "
            f"{'no write access' if is_folder else 'a file'}; choose another OUT"
        )


def _is_inside(path: Path, folder: Path) -> bool:
    """Return whether ``path`` equals ``folder`` or lies in it, after all links are followed."""
    try:
        inner, outer = path.resolve(), folder.resolve()
    except (OSError, RuntimeError):  # a loop of links, which `check_output` reports
        return False
    return inner == outer or (folder.is_dir() and outer in inner.parents)
