# SPDX-License-Identifier: Apache-2.0
"""Install what the benchmarks compare with and draw with:  python benchmarks/harness/baselines.py

GluonFR and matplotlib go into .baselines (requirements/baselines.txt, with hashes), not into the
environment that trains; the scripts of this folder call this themselves.  PyTorch is too large for
that: the scripts take the interpreter of an environment that has it, from ``--torch`` or
TORCH_PYTHON.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "baselines.txt"
FOLDER = ROOT / ".baselines"


def install(folder: Path = FOLDER, lock: Path = LOCK) -> str:
    """Install the lock into the folder unless it is there; return why that failed, or nothing.

    A stamp holds the checksum of the lock and the version of Python.  The folder is made aside and
    renamed, so that it is never half there.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = hashlib.sha256(lock.read_bytes() + version.encode()).hexdigest()
    stamp = folder / ".stamp"
    if stamp.is_file() and stamp.read_text() == wanted:
        return ""
    print(f"installing requirements/{lock.name} into {folder.name} (some 80 MB)", flush=True)
    made = folder.with_name(f"{folder.name}-{os.getpid()}")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    # GluonFR is a source package: it is built with the setuptools of the environment.
    command += ["--no-deps", "--no-build-isolation", "--require-hashes"]
    try:
        done = subprocess.run(
            [*command, "--target", str(made), "-r", str(lock)], capture_output=True, text=True
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return f"pip could not install requirements/{lock.name}: {' '.join(lines)[:300]}"
        made.mkdir(exist_ok=True)
        (made / ".gitignore").write_text("*\n")  # as an environment of Python 3.13 has it
        (made / ".stamp").write_text(wanted)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return ""


def use_folder(folder: Path = FOLDER) -> None:
    """Let this process import from the folder; what the environment has comes first."""
    sys.path.append(str(folder))


if __name__ == "__main__":
    sys.exit(install() or 0)
