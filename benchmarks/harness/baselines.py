# SPDX-License-Identifier: Apache-2.0
"""Install the baselines and the plotting library:  python benchmarks/harness/baselines.py

GluonFR, simplejpeg and matplotlib are installed into the folder .baselines, outside the training
environment; requirements/baselines.txt locks their versions and hashes.  A benchmark that needs
them installs them automatically.  PyTorch is too large for that folder: ``--torch`` or TORCH_PYTHON
names the Python interpreter of an environment with PyTorch.
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

    A stamp file records the checksum of the lock and the Python version.  The packages go into a
    temporary folder, which is renamed at the end.  So an interrupted installation leaves no partial
    folder.

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
    # GluonFR is a source package; the environment's setuptools builds it.
    command += ["--no-deps", "--no-build-isolation", "--require-hashes"]
    try:
        done = subprocess.run(
            [*command, "--target", str(temporary), "-r", str(lock)], capture_output=True, text=True
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return f"pip could not install requirements/{lock.name}: {' '.join(lines)[:300]}"
        temporary.mkdir(exist_ok=True)
        (temporary / ".gitignore").write_text("*\n")  # git must ignore the folder
        (temporary / ".stamp").write_text(checksum)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return ""


def use_folder(folder: Path = FOLDER) -> None:
    """Make the installed baselines importable: append their folder to ``sys.path``.

    Packages of the environment take precedence.
    """
    sys.path.append(str(folder))


if __name__ == "__main__":
    sys.exit(install() or 0)
