# SPDX-License-Identifier: Apache-2.0
"""A limit on open files that is too low for a run is refused in one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from launch.environment.open_files import MIN_OPEN_FILES

CODE = """
import resource, sys
from launch.environment.open_files import OpenFilesError, require_open_files
soft, hard, ranks = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    require_open_files(ranks)
except OpenFilesError as error:
    sys.exit(str(error))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def limited(soft, hard, ranks=0):
    command = [sys.executable, "-c", CODE, *map(str, (soft, hard, ranks))]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(("limit", "ranks", "needed"), [(20, 0, 64), (70, 2, 96)])
def test_a_low_limit_is_refused(limit, ranks, needed):
    done = limited(limit, limit, ranks)
    assert done.stderr == (
        f"ulimit -n: the limit on open files must be at least {needed}, got {limit}; let an "
        f"administrator raise the hard limit to {needed}\n"
    )


def test_the_soft_limit_is_raised_to_the_hard_limit():
    assert limited(20, MIN_OPEN_FILES).stdout == f"{MIN_OPEN_FILES}\n"


@pytest.mark.parametrize("command", [["run_train.py"], ["-m", "launch.local", "-np", "2"]])
def test_training_and_its_launcher_leave_with_code_2(command):
    shell = 'ulimit -n 20; exec "$0" "$@"'
    run = ["bash", "-c", shell, sys.executable, *command, "--cfg", "demo.yaml"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "got 20; let an administrator raise" in done.stderr
