# SPDX-License-Identifier: Apache-2.0
"""Check the prerequisites of the GPU measurements before the first one starts.

The module needs only the standard library.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tools.gpu_day.setting import ROOT

COMPLETE = ".stamp-horovod"
"""File that launch/environment/setup.sh writes last, so it marks a complete environment."""
DRIVER_TIMEOUT_S = 60
"""Time limit in seconds for counting the GPUs."""


class MissingPrerequisite(Exception):
    """A prerequisite of the measurements is missing; the message is one sentence for the user."""


def require_environment(venv: Path) -> str:
    """Check that a Python environment is complete; return the path of its interpreter.

    Raises
    ------
    MissingPrerequisite
        If the environment is incomplete.
    """
    python = venv / "bin" / "python"
    if not (venv / COMPLETE).is_file() or not python.is_file():
        target = "make gpu" if venv.name.endswith("-gpu") else "make setup"
        raise MissingPrerequisite(
            f"{venv}: must be a complete Python environment, got none or a part; run `{target}`"
        )
    return str(python)


def count_gpus(python: str) -> int:
    """Return the number of GPUs that the NVIDIA driver reports; 0 if there is no driver.

    Raises
    ------
    MissingPrerequisite
        If the driver does not answer.
    """
    try:
        # A separate process asks the driver, because a broken driver can hang or crash.
        done = subprocess.run(
            [python, "-m", "launch.environment.gpu"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=DRIVER_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise MissingPrerequisite(
            f"the NVIDIA driver does not answer, got nothing within {DRIVER_TIMEOUT_S} s; check "
            "the output of nvidia-smi, or rehearse on the CPU with --rehearse"
        ) from None
    return int(done.stdout) if done.returncode == 0 else 0


def require_gpu_environment(venv: Path, gpus: int) -> None:
    """Raise MissingPrerequisite if there are GPUs, but the Python environment is for the CPU."""
    if gpus and not venv.name.endswith("-gpu"):
        raise MissingPrerequisite(
            f"this machine has {gpus} GPU{'s' if gpus > 1 else ''}, so the environment must be the "
            f"one for GPUs, got {venv}; run `make gpu`, or rehearse on the CPU with --rehearse"
        )


def require_records(folder: Path) -> None:
    """Raise MissingPrerequisite if a folder lacks a record set or a verification set."""
    names = [
        name for name in ("train.rec", "train.idx", "property") if not (folder / name).is_file()
    ]
    if not names and not any(folder.glob("*.bin")):
        names = ["NAME.bin"]
    if names:
        raise MissingPrerequisite(
            f"the images are missing, got no {', '.join(names)} in {folder}; run `make sample`, "
            "or name another folder with --records FOLDER"
        )


def require_writable(folder: Path) -> None:
    """Raise MissingPrerequisite if the results folder is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise MissingPrerequisite(
            f"the results cannot be written, got {error.strerror} for {folder}; name another "
            "folder with --out FOLDER"
        ) from None
