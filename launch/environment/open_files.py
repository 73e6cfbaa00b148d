# SPDX-License-Identifier: Apache-2.0
"""Limit on open files of a process (``ulimit -n``), which a run must not exhaust."""

from __future__ import annotations

import contextlib
import resource

MIN_OPEN_FILES = 64
"""Minimum number of open files for a rank: its pipes, record files, libraries and sockets."""
FILES_PER_RANK = 16
"""Number of open files that horovodrun needs for each rank that it starts."""


class OpenFilesError(ValueError):
    """Error for a limit on open files that is too low for a run."""


def require_open_files(ranks: int = 0) -> None:
    """Raise the soft limit on open files to the hard limit, and check the result.

    Parameters
    ----------
    ranks
        Number of ranks that this process starts with horovodrun.

    Raises
    ------
    OpenFilesError
        If the limit is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # some systems refuse RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    needed = MIN_OPEN_FILES + FILES_PER_RANK * ranks
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise OpenFilesError(
            f"ulimit -n: the limit on open files must be at least {needed}, got {soft}; let an "
            f"administrator raise the hard limit to {needed}"
        )
