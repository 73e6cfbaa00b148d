# SPDX-License-Identifier: Apache-2.0
"""Write files atomically: write a temporary file in the same folder, call fsync, then rename it.

A reader finds either the old file or the complete new file.  After an error the temporary file is
removed.  A killed process may leave a hidden temporary file ``.<name>.<host>-<thread>.part``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(
    path: str | os.PathLike[str], mode: str = "wb", sync: bool = True
) -> Iterator[IO[Any]]:
    """Open a temporary file for writing; rename it to ``path`` if the block ends without an error.

    Parameters
    ----------
    path
        Path of the final file; its folder must exist.
    mode
        "wb" for bytes, or "w" for text in UTF-8.
    sync
        Whether to wait until the file is on the disk.  Without the wait, a crash of the machine may
        leave an empty file; a command that writes thousands of small files omits the wait.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with atomic_write_together([path], mode, sync) as (file,):
        yield file


@contextmanager
def atomic_write_together(
    paths: Sequence[str | os.PathLike[str]], mode: str = "wb", sync: bool = True
) -> Iterator[list[IO[Any]]]:
    """Open several files of one folder as ``atomic_write`` does; rename them in the given order.

    All files are on the disk before the first rename.  An older file with the name of the last path
    is removed before the first rename.  Therefore, if the last file exists, all files of the set
    exist.
    """
    targets = [Path(path) for path in paths]
    # Ranks on several hosts may share the folder, and thread ids are unique only within a host.
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
                if sync:
                    os.fsync(file.fileno())
        rename_together(temporaries, targets, sync)
    finally:
        for temporary in temporaries:
            with suppress(OSError):
                temporary.unlink()


def rename_together(
    temporaries: Sequence[str | os.PathLike[str]],
    targets: Sequence[str | os.PathLike[str]],
    sync: bool = True,
) -> None:
    """Rename temporary files to ``targets``, in the given order.

    The caller has written the temporary files completely and, if they must survive a crash of the
    machine, flushed them to the disk.  If there are several targets, an older file with the name of
    the last target is removed first.  If a temporary file does not exist but its target does, an
    earlier call that was interrupted has renamed it already.  With ``sync``, the function waits
    until the renames are on the disk.

    Raises
    ------
    FileNotFoundError
        If neither the temporary file nor its target exists.
    """
    if len(targets) > 1 and os.path.lexists(temporaries[-1]):
        Path(targets[-1]).unlink(missing_ok=True)
    for temporary, target in zip(temporaries, targets, strict=True):
        if os.path.lexists(temporary) or not os.path.lexists(target):
            os.replace(temporary, target)
    if sync:
        sync_folder(Path(targets[0]).parent)


def sync_folder(folder: Path) -> None:
    """Flush the directory entries of a folder to the disk, so that renames survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
