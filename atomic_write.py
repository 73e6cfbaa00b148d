# SPDX-License-Identifier: Apache-2.0
"""The one way a file appears: written aside in its folder, fsynced, renamed.

Readers find the old file or the new one, and after an error nothing is left of the new one.  A
killed process may leave a hidden ``.<name>.<host>-<thread>.part``.  Imports nothing of ours.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file for writing that takes its name once the block has ended without an error.

    Parameters
    ----------
    path
        The file; its folder must exist.
    mode
        "wb", or "w" for text in UTF-8.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with atomic_write_together([path], mode) as (file,):
        yield file


@contextmanager
def atomic_write_together(
    paths: Sequence[str | os.PathLike[str]], mode: str = "wb"
) -> Iterator[list[IO[Any]]]:
    """Open files of one folder as ``atomic_write`` does; they take their names in order.

    All are on the disk before the first is renamed.  The last of several files vouches for the
    others: an old one of its name is removed before any is renamed.
    """
    targets = [Path(path) for path in paths]
    # Ranks may share the folder over a network: the thread alone would not tell them apart.
    writer = f"{os.uname().nodename}-{threading.get_native_id()}"
    asides = [path.with_name(f".{path.name}.{writer}.part") for path in targets]
    try:
        with ExitStack() as stack:
            encoding = None if "b" in mode else "utf-8"
            files = [stack.enter_context(open(path, mode, encoding=encoding)) for path in asides]
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        if len(targets) > 1:
            targets[-1].unlink(missing_ok=True)
        for aside, path in zip(asides, targets, strict=True):
            os.replace(aside, path)
        sync_folder(targets[0].parent)
    finally:
        for aside in asides:
            with suppress(OSError):
                aside.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
