# SPDX-License-Identifier: Apache-2.0
"""Replace the URLs in ``data.records`` by the paths of local copies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from launch.config.paths import expand_home, is_url
from pipeline.records.remote import copy_records

HEAD_START_S = 0.5
"""Seconds by which local rank 0 of a host starts copying before the other ranks of the host."""


def local_records(
    records: Sequence[str], cache: str, local_rank: int
) -> tuple[list[str], list[str]]:
    """Copy the record sets that are URLs to this host; return all paths, and notices for the log.

    Parameters
    ----------
    records
        Paths and URLs of record sets.
    cache
        Folder for the copies; a leading ``~`` means the home folder.
    local_rank
        Number of this rank on its host.

    Raises
    ------
    RecordError
        If a set cannot be copied.
    """
    # Horovod: on each host, the first rank that calls copy_records copies.  The other ranks call it
    # later than local rank 0.  So rank 0 copies on its host: launch.local and launch.hosts show the
    # progress lines of rank 0 only.
    if local_rank > 0 and any(map(is_url, records)):
        time.sleep(HEAD_START_S)
    paths: list[str] = []
    notices: list[str] = []
    for record in records:
        if not is_url(record):
            paths.append(record)
            continue
        # Horovod: every rank calls this function; on each host, the first caller copies.
        copy = copy_records(
            record, Path(expand_home(cache)), say=_say, announces_wait=local_rank == 0
        )
        paths.append(str(copy.rec))
        notices += copy.notices
    return paths, notices


def _say(text: str) -> None:
    print(text, flush=True)
