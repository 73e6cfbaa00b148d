# SPDX-License-Identifier: Apache-2.0
"""Write files atomically: to a temporary file in the same folder, fsync, rename.

Readers find either the old file or the new one.  After an error no part of the new file remains.
A killed process may leave a hidden file ``.<name>.<host>-<thread>.part``.
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
    """Open a temporary file for writing; rename it to ``path`` if the block ends without an error.

    Parameters
    ----------
    path
        Name of the file; its folder must exist.
    mode
        "wb", or "w" for text in UTF-8.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with atomic_write_together([path], mode) as (file,):
        yield file


@contextmanager
def atomic_write_together(
    paths: Sequence[str | os.PathLike[str]], mode: str = "wb"
) -> Iterator[list[IO[Any]]]:
    """Open several files of one folder as ``atomic_write`` does and rename them in order.

    All files are on the disk before the first rename.  If the last file exists, so do the others:
    an older file of its name is removed before the first rename.
    """
    targets = [Path(path) for path in paths]
    # Ranks on several hosts may share the folder: a thread number alone is not unique.
    writer = f"{os.uname().nodename}-{threading.get_native_id()}"
    temporaries = [path.with_name(f".{path.name}.{writer}.part") for path in targets]
    try:
        with ExitStack() as stack:
            encoding = None if "b" in mode else "utf-8"
            files = [
                stack.enter_context(open(path, mode, encoding=encoding)) for path in temporaries
            ]
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        if len(targets) > 1:
            targets[-1].unlink(missing_ok=True)
        for temporary, path in zip(temporaries, targets, strict=True):
            os.replace(temporary, path)
        sync_folder(targets[0].parent)
    finally:
        for temporary in temporaries:
            with suppress(OSError):
                temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Flush the file names of a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
