# SPDX-License-Identifier: Apache-2.0
"""How the cores of a host are shared among its ranks.

MXNet, OpenBLAS and oneDNN read OMP_NUM_THREADS when they are loaded, so this runs before mxnet is
imported: the one exception to no work at import.
"""

from __future__ import annotations

import os


def share_cores() -> int:
    """Set OMP_NUM_THREADS for this rank and return it: cores / ranks of this host, at least 1.

    The user's own OMP_NUM_THREADS wins.  Horovod: the number of ranks of this host comes from
    HOROVOD_LOCAL_SIZE, which horovodrun sets.
    """
    cores = len(os.sched_getaffinity(0))
    local_size = int(os.environ.get("HOROVOD_LOCAL_SIZE", "1"))
    threads = max(1, cores // local_size)
    own = os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # Spinning OpenMP threads would take the core from the loader and from the other ranks.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return max(1, int(own)) if own.isdecimal() else threads
