# SPDX-License-Identifier: Apache-2.0
"""Install the packages that only the benchmarks need: GluonFR, simplejpeg and matplotlib.

    python benchmarks/harness/baselines.py

The packages go into the folder .baselines, outside the training environment.
requirements/baselines.txt locks their versions and hashes.  A benchmark installs them automatically
if it needs them.  PyTorch is too large to be installed there.  Instead, the option ``--torch`` or
the environment variable TORCH_PYTHON names the Python interpreter of an environment with PyTorch.
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
    """Install the packages of a lock file into a folder, unless the folder holds them already.

    The file ``.stamp`` in the folder holds a checksum over the lock file and the Python version.
    The packages go into a temporary folder, which is renamed at the end, so that an interrupted
    installation leaves no partial folder.

    Returns
    -------
    str
        Reason why the installation failed; empty on success.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    checksum = hashlib.sha256(lock.read_bytes() + version.encode()).hexdigest()
    stamp = folder / ".stamp"
    if stamp.is_file() and stamp.read_text() == checksum:
        return ""
    print(f"installing requirements/{lock.name} into {folder.name} (about 80 MB)", flush=True)
    temporary = folder.with_name(f"{folder.name}-{os.getpid()}")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    # GluonFR is a source distribution, which the setuptools of this environment builds.
    command += ["--no-deps", "--no-build-isolation", "--require-hashes"]
    try:
        done = subprocess.run(
            [*command, "--target", str(temporary), "-r", str(lock)], capture_output=True, text=True
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return f"pip could not install requirements/{lock.name}: {' '.join(lines)[:300]}"
        temporary.mkdir(exist_ok=True)
        (temporary / ".gitignore").write_text("*\n")
        (temporary / ".stamp").write_text(checksum)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return ""


def use_folder(folder: Path = FOLDER) -> None:
    """Append the folder of the installed packages to ``sys.path``.

    Packages of the environment take precedence, because they come earlier in ``sys.path``.
    """
    sys.path.append(str(folder))


if __name__ == "__main__":
    sys.exit(install() or 0)
