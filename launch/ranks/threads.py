# SPDX-License-Identifier: Apache-2.0
"""Set the number of OpenMP threads of a rank.

MXNet, OpenBLAS and oneDNN read OMP_NUM_THREADS when they are loaded, so `share_cores` must run
before mxnet is imported.
"""

from __future__ import annotations

import os


def share_cores() -> int:
    """Set OMP_NUM_THREADS to the number of cores per rank of this host; return the value.

    The number of ranks of this host is HOROVOD_LOCAL_SIZE, which horovodrun sets.  An
    OMP_NUM_THREADS that the user has set has precedence.
    """
    cores = len(os.sched_getaffinity(0))
    local_size = int(os.environ.get("HOROVOD_LOCAL_SIZE", "1"))
    threads = max(1, cores // local_size)
    value = os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # Without the policy PASSIVE, waiting OpenMP threads would spin on cores that the loader and
    # other ranks need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return max(1, int(value)) if value.isdecimal() else threads
