# SPDX-License-Identifier: Apache-2.0
"""Environment and number of ranks of `make train`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def started(tmp_path):
    """Return ``started(*variables)``, the command with which make would start the training."""
    shutil.copy(ROOT / "Makefile", tmp_path)

    def line(*variables: str, options: tuple[str, ...] = (), cwd: Path = tmp_path) -> str:
        # Variables of an outer make must not reach this one.
        outside = {k: v for k, v in os.environ.items() if k not in ("VENV", "NP")}
        environment = {k: v for k, v in outside.items() if not k.startswith("MAKE")}
        environment.pop("MFLAGS", None)
        done = subprocess.run(
            ["make", *options, "-n", "train", *variables],
            cwd=cwd,
            env={**environment, "PWD": str(cwd)},
            capture_output=True,
            text=True,
            check=True,
        )
        (found,) = [text for text in done.stdout.splitlines() if "launch.local" in text]
        return found.removeprefix("exec ")

    return line


def make_gpu_environment(folder: Path, answer: str, complete: bool = True) -> None:
    """Create a .venv-gpu whose Python runs ``answer`` for `-m launch.environment.gpu`."""
    python = folder / ".venv-gpu" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$*" = "-m launch.environment.gpu" ] && {answer}\n')
    python.chmod(0o755)
    if complete:
        (folder / ".venv-gpu" / ".stamp-horovod").touch()


def test_make_train_uses_the_cpu_without_a_gpu_environment(started):
    assert started().startswith(".venv/bin/python -m launch.local -np 2 --cfg ")


def test_make_train_starts_one_rank_per_gpu(started, tmp_path):
    make_gpu_environment(tmp_path, "echo 8")
    assert started().startswith(".venv-gpu/bin/python -m launch.local -np 8 ")
    assert started("NP=3").startswith(".venv-gpu/bin/python -m launch.local -np 3 ")
    assert started("VENV=.venv").startswith(".venv/bin/python -m launch.local -np 2 ")


def test_make_train_starts_two_ranks_if_the_driver_reports_no_gpu(started, tmp_path):
    make_gpu_environment(tmp_path, "echo 0")
    assert started().startswith(".venv-gpu/bin/python -m launch.local -np 2 ")


@pytest.mark.parametrize(("answer", "complete"), [("exit 1", True), ("echo 8", False)])
def test_make_train_uses_the_cpu_without_a_driver_or_a_complete_environment(
    answer, complete, started, tmp_path
):
    make_gpu_environment(tmp_path, answer, complete)
    assert started().startswith(".venv/bin/python -m launch.local -np 2 ")


@pytest.fixture
def launched(tmp_path):
    """Return ``launched(*arguments, cwd)``: folder and arguments of the launcher of make."""
    project = tmp_path / "project"
    (project / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", project)
    (project / "launch" / "environment").mkdir(parents=True)
    (project / "launch" / "environment" / "setup.sh").write_text("")
    python = project / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\npwd\nfor word in "$@"; do printf "%s\\n" "$word"; done\n')
    python.chmod(0o755)

    def launch(*arguments: str, cwd: Path = project) -> tuple[str, list[str]]:
        plain = {k: v for k, v in os.environ.items() if k not in ("VENV", "NP", "CFG", "DATA")}
        environment = {k: v for k, v in plain.items() if not k.startswith(("MAKE", "MFLAGS"))}
        done = subprocess.run(
            ["make", *arguments],
            cwd=cwd,
            env={**environment, "PWD": str(cwd)},
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [text for text in done.stdout.splitlines() if not text.startswith("make")]
        start = lines.index("launch.local") - 2
        return lines[start], lines[start + 3 :]

    return launch


@pytest.mark.parametrize("data", ["/a b/it's", '/x"y', "/$HOME", "/a;touch x", "faces", "/$(id)"])
def test_any_folder_reaches_the_launcher_unchanged(data, launched):
    _, arguments = launched("train", f"DATA={data}", "NP=1")
    assert arguments == ["-np", "1", "--cfg", "own.yaml", "--data", data]


def test_own_data_has_its_own_recipe(launched):
    assert launched("train", "DATA=/set", "CFG=a b.yaml")[1][2:4] == ["--cfg", "a b.yaml"]


def test_paths_are_relative_to_the_caller_of_make(launched, tmp_path):
    project = tmp_path / "project"
    assert launched("train", "DATA=x")[0] == str(project)
    folder, arguments = launched("-C", "project", "train", "DATA=x", cwd=tmp_path)
    assert folder == str(tmp_path) and arguments[-1] == "x"
