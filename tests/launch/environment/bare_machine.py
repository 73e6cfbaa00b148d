# SPDX-License-Identifier: Apache-2.0
"""Simulated machine for setup.sh: a folder with the sources, and a PATH that a test controls.

A shell script replaces Python, both that of the system and that of an environment.  It creates
folders, accepts every `pip install` and records its arguments.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TOOLS = (
    *("awk", "basename", "bash", "cat", "cp", "cut", "dirname", "env", "find", "grep", "id", "ln"),
    *("make", "mkdir", "mktemp", "nproc", "rm", "sed", "sh", "sha256sum", "sort", "tail", "touch"),
    *("uname", "xargs"),
)
SOURCES = ("Makefile", "pyproject.toml", "requirements", "launch", "ops")
PYTHON = r"""#!/bin/bash
folder=${0%/*}
case "$*" in
    *%d.%d*) echo 3.11 && exit ;;
    "-c import venv, ensurepip") [ ! -e "$folder/no-venv" ]; exit ;;
    "-c import ctypes;"*) exit 1 ;; # no driver
    *sysconfig*) echo "$folder" && exit ;;
    *sys.version.split*) echo 3.11.2 && exit ;;
    "-m launch.environment.gpu") exit 1 ;;
    "-m venv "*) target=${*: -1} && mkdir -p "$target/bin" && cp "$0" "$target/bin/python" ;;
esac
echo "$*" >>"$CALLS"
"""


@dataclass
class BareMachine:
    """A folder with the sources, and the programs on its PATH."""

    folder: Path
    sources: tuple[str, ...] = SOURCES
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.train.mkdir(parents=True)
        self.path.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.path / tool).symlink_to(found)
        self.program("python3.11", PYTHON)
        for name in self.sources:
            self.copy(name)

    @property
    def train(self) -> Path:
        """Folder of the sources; it is /train in the images."""
        return self.folder / "train"

    @property
    def path(self) -> Path:
        return self.folder / "path"

    @property
    def calls(self) -> list[str]:
        """Arguments of all calls of Python so far, except calls that only print values."""
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def program(self, name: str, script: str = "#!/bin/sh\n") -> None:
        (self.path / name).write_text(script)
        (self.path / name).chmod(0o755)

    def compilers(self) -> None:
        """Install a C++ compiler and the venv module."""
        self.program("g++")
        (self.path / "no-venv").unlink(missing_ok=True)

    def no_compilers(self) -> None:
        """Remove both, as in the images without compilers."""
        (self.path / "g++").unlink(missing_ok=True)
        (self.path / "no-venv").touch()

    def copy(self, name: str) -> None:
        """Copy a file or folder of the sources, without what .dockerignore excludes."""
        source, target = ROOT / name, self.train / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the folder of the sources."""
        environment = {"PATH": str(self.path), "TMPDIR": str(self.folder)}
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self.train,
            env={**environment, "CALLS": str(self.folder / "calls"), **self.variables},
            capture_output=True,
            text=True,
            executable=self.path / "sh",
        )

    def done(self, command: str) -> str:
        """Run a command that must succeed without error output; return its output."""
        done = self.run(command)
        assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
        return done.stdout

    def refusal(self, command: str) -> str:
        """Run a command that must exit with code 2 and one error message; return the message."""
        done = self.run(command)
        # make adds a line on the failed command.
        lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
        assert done.returncode == 2 and len(lines) == 1, (done.stdout, done.stderr)
        return lines[0]
