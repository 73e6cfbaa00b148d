# SPDX-License-Identifier: Apache-2.0
"""Record the properties of the machine, its GPUs and their driver (step 0 of `tools.gpu_day`)."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.environment.provenance import commit, cpu_model, versions
from tools.gpu_day.commands import run
from tools.gpu_day.results import Parts, Skipped

if TYPE_CHECKING:
    from tools.gpu_day.setting import Setting

QUERY_TIMEOUT_S = 5
LIBRARIES = ("libcuda.so.1", "libcuda.so", "libnvcuvid.so.1")
"""Libraries of the driver that the step tries to load.

In this order: CUDA; CUDA under the name that Horovod with NCCL loads; the library that the
hardware JPEG decoder of some GPUs (A100, H100) needs.
"""
FIELDS = ("driver_version", "memory.total", "ecc.mode.current", "mig.mode.current")
"""Fields of nvidia-smi.

Each field is queried separately, because a query with an unknown field fails.  The names of the
GPUs come from the driver.
"""


def measure(setting: Setting, parts: Parts) -> None:
    """Record the properties of the GPUs, of the driver and of the host."""
    with parts.part("GPUs and driver"):
        if not setting.gpus:
            raise Skipped("no GPU")
        parts.measured("GPUs and driver", gpus(setting.gpus))
    with parts.part("host"):
        parts.measured("host", host())
    if setting.gpus:
        with parts.part("nvidia-smi"):
            if not shutil.which("nvidia-smi"):
                raise Skipped("there is no nvidia-smi")
            codes = [
                run(["nvidia-smi", *d], limit_s=QUERY_TIMEOUT_S).code
                for d in (["-q"], ["topo", "-m"])
            ]
            wrong = f"`nvidia-smi -q` and `nvidia-smi topo -m` ended with the exit codes {codes}"
            parts.require("nvidia-smi", not any(codes), "the output is in the log", wrong)


def gpus(count: int) -> dict[str, Any]:
    """Return the properties of the GPUs and the driver, and which of LIBRARIES can be loaded."""
    from launch.environment.gpu import Driver

    driver = Driver()
    kinds = [str(driver.gpu(index)) for index in range(count)]
    found: dict[str, Any] = (
        {f"{kinds.count(kind)} x": kind for kind in dict.fromkeys(kinds)}
        if len(set(kinds)) == 1
        else {"GPUs": kinds}
    )
    for field in FIELDS:
        if shutil.which("nvidia-smi"):
            answer = run(
                ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"],
                limit_s=QUERY_TIMEOUT_S,
            )
            values = list(dict.fromkeys(answer.text.strip().splitlines()))
            found[field] = ", ".join(values) if answer.code == 0 else "unknown"
    found |= {name: "loads" if loads(name) else "missing" for name in LIBRARIES}
    return found


def host() -> dict[str, Any]:
    """Return the processor, memory, resource limits, software versions and commit of the host."""
    shared = os.statvfs("/dev/shm") if Path("/dev/shm").is_dir() else None
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "shared_memory_mib": shared.f_frsize * shared.f_blocks >> 20 if shared else 0,
        "open_files": open_files,
        "locked_memory": "unlimited" if locked == resource.RLIM_INFINITY else locked,
        **versions(),
        "commit": commit(),
    }


def loads(library: str) -> bool:
    """Return whether a shared library can be loaded by this name."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
