# SPDX-License-Identifier: Apache-2.0
"""Find what a result depends on: package versions, Git commit and processor model."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

PROJECT = "face-training"
"""Name of this project in pyproject.toml."""
PACKAGES = ("mxnet", "nvidia-dali-cuda110", "horovod", "numpy", "tensorboardX")
UNKNOWN = "unknown"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        found[package] = _version(package) or "absent"
    if gpu_wheel := _version("mxnet-cu112"):  # the CUDA build of mxnet
        found["mxnet"] = found["mxnet-cu112"] = gpu_wheel
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str:
    """Return the Git commit of this checkout; "unknown" outside a checkout.

    The container images contain no Git history, so their environment variable SOURCE_COMMIT
    contains the commit.
    """
    if source_commit := os.environ.get("SOURCE_COMMIT"):
        return source_commit
    root = Path(__file__).resolve().parents[2]
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return UNKNOWN
    return answer.stdout.strip() or UNKNOWN


def version_line() -> str:
    """Return the line that ``--version`` prints: name, version and commit of this project."""
    number = _version(PROJECT) or "unknown version"
    source = commit()
    return f"{PROJECT} {number} ({'unknown commit' if source == UNKNOWN else source})"


class VersionAction(argparse.Action):
    """Action of the option ``--version``: print the version line and exit.

    Unlike argparse's ``action="version"``, this action runs git only if the option is used.
    """

    def __init__(self, option_strings: list[str], dest: str, **_: Any):
        super().__init__(
            option_strings,
            dest,
            nargs=0,
            default=argparse.SUPPRESS,
            help="print version and commit",
        )

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Print the version line on standard output and exit with code 0."""
        print(version_line())
        parser.exit()


def cpu_model() -> str:
    """Return the model name of the processor from /proc/cpuinfo, or else its architecture."""
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
