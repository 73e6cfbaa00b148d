# SPDX-License-Identifier: Apache-2.0
"""What a result depends on besides its configuration: versions and commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("mxnet", "nvidia-dali-cuda110", "horovod", "numpy", "tensorboardX")


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        found[package] = _version(package) or "absent"
    if gpu_wheel := _version("mxnet-cu112"):  # the same MXNet, packed for CUDA
        found["mxnet"] = found["mxnet-cu112"] = gpu_wheel
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str:
    """Return the commit of this checkout, "unknown" outside one.

    Images hold no history; the one that they were built from stands in SOURCE_COMMIT.
    """
    if named := os.environ.get("SOURCE_COMMIT"):
        return named
    root = Path(__file__).resolve().parents[2]
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return answer.stdout.strip() or "unknown"


def cpu_model() -> str:
    """Return the name of the processor as Linux has it."""
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
