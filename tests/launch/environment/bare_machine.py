# SPDX-License-Identifier: Apache-2.0
"""A machine for setup.sh: a folder with our sources, and a PATH that holds what the test wants.

Python is a script that stands for the system's and for that of an environment: it makes folders,
takes every `pip install` and writes down what it is called with.
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
    """A folder and the programs that are on the PATH there."""

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
        """The folder of the sources, /train in the images."""
        return self.folder / "train"

    @property
    def path(self) -> Path:
        return self.folder / "path"

    @property
    def calls(self) -> list[str]:
        """What Python was called with so far, but for questions."""
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def program(self, name: str, script: str = "#!/bin/sh\n") -> None:
        (self.path / name).write_text(script)
        (self.path / name).chmod(0o755)

    def compilers(self) -> None:
        """Install what Debian's g++ and python3-venv are for."""
        self.program("g++")
        (self.path / "no-venv").unlink(missing_ok=True)

    def no_compilers(self) -> None:
        """Have neither, as the images that run."""
        (self.path / "g++").unlink(missing_ok=True)
        (self.path / "no-venv").touch()

    def copy(self, name: str) -> None:
        """Copy a file or folder of ours, as .dockerignore lets it through."""
        source, target = ROOT / name, self.train / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a line of the shell in the folder of the sources."""
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
        """Run a line that must succeed without complaints; return what it says."""
        done = self.run(command)
        assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
        return done.stdout

    def refusal(self, command: str) -> str:
        """Return the one sentence with which a command ends with code 2."""
        done = self.run(command)
        # make says in a line of its own that its command failed.
        lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
        assert done.returncode == 2 and len(lines) == 1, (done.stdout, done.stderr)
        return lines[0]
