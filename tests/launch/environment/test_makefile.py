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

    def line(*variables: str) -> str:
        # Variables of an outer make must not reach this one.
        outside = {k: v for k, v in os.environ.items() if k not in ("VENV", "NP")}
        environment = {k: v for k, v in outside.items() if not k.startswith("MAKE")}
        environment.pop("MFLAGS", None)
        done = subprocess.run(
            ["make", "-n", "train", *variables],
            cwd=tmp_path,
            env=environment,
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
    assert started().startswith(".venv/bin/python -m launch.local -np 2 --cfg demo.yaml")


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
