# SPDX-License-Identifier: Apache-2.0
"""What must be there before the day begins.  Standard library only."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tools.gpu_day.setting import ROOT

COMPLETE = ".stamp-horovod"
"""File of an environment that launch/environment/setup.sh has finished."""
ASK_S = 60
"""That counting the GPUs may take."""


class Missing(Exception):
    """The day cannot begin; the message is one sentence for the user."""


def require_environment(venv: Path) -> str:
    """Return the interpreter of an environment.

    Raises
    ------
    Missing
        If the environment is not complete.
    """
    python = venv / "bin" / "python"
    if not (venv / COMPLETE).is_file() or not python.is_file():
        target = "make gpu" if venv.name.endswith("-gpu") else "make setup"
        raise Missing(f"the environment is missing or not complete, got {venv}; call `{target}`")
    return str(python)


def count_gpus(python: str) -> int:
    """Return the number of GPUs as the driver counts them, 0 where there is no driver.

    Raises
    ------
    Missing
        If the driver does not answer.
    """
    try:
        # In a process of its own: a driver that hangs or crashes must not take this one along.
        done = subprocess.run(
            [python, "-m", "launch.environment.gpu"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=ASK_S,
        )
    except subprocess.TimeoutExpired:
        raise Missing(
            f"the NVIDIA driver does not answer, got nothing within {ASK_S} s; see what nvidia-smi "
            "says, or rehearse with --rehearse"
        ) from None
    return int(done.stdout) if done.returncode == 0 else 0


def require_gpu_environment(venv: Path, gpus: int) -> None:
    """Raise Missing if there are GPUs and the environment is the one for the CPU."""
    if gpus and not venv.name.endswith("-gpu"):
        raise Missing(
            f"{gpus} GPU{'s' if gpus > 1 else ''} are to be measured with the environment for the "
            f"CPU, got {venv}; call `make gpu`, or rehearse with --rehearse"
        )


def require_records(folder: Path) -> None:
    """Raise Missing if a folder is no record set with a verification set beside it."""
    names = [
        name for name in ("train.rec", "train.idx", "property") if not (folder / name).is_file()
    ]
    if not names and not any(folder.glob("*.bin")):
        names = ["NAME.bin"]
    if names:
        raise Missing(
            f"the images are missing, got no {', '.join(names)} in {folder}; call `make sample`, "
            "or name a folder that has them with --records FOLDER"
        )


def require_writable(folder: Path) -> None:
    """Raise Missing if the folder of the results cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Missing(
            f"the results cannot be written, got {error.strerror} for {folder}; name another "
            "folder with --out FOLDER"
        ) from None
