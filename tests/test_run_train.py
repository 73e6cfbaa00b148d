# SPDX-License-Identifier: Apache-2.0
"""run_train.py in a separate process: order of its imports, printed text and usage errors.

tests/parallel starts whole runs, tests/assemble tests the parts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

ORDER = """
import sys
from launch.ranks import malloc, threads

def watched(work, name):
    def done():
        print(name, "mxnet" in sys.modules)
        return work()
    return done

threads.share_cores = watched(threads.share_cores, "threads")
malloc.keep_memory = watched(malloc.keep_memory, "memory")
import run_train
print("dali", "nvidia.dali" in sys.modules, "horovod", "horovod.mxnet" in sys.modules)
print("scipy", "scipy" in sys.modules)  # mxnet would load it, which takes 0.6 s
"""

ANSWER = """
import sys
import run_train
from launch.ranks.comm import Comm

class Rank(Comm):
    def gather_json(self, value):
        return [value]

def refuse(*arguments):
    raise AssertionError("something was opened")

run_train.read_config = lambda argv: "optim.lr: float, 0.1"
run_train.open_inputs = refuse
for rank in (1, 0):
    print("rank", rank, flush=True)
    run_train.connect = lambda: Rank(rank, 2)
    assert run_train.main(["--help"]) == 0
"""


def run(*arguments: str) -> tuple[int, str, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HOROVOD_")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_threads_and_memory_are_set_before_mxnet_and_dali_loads_before_horovod():
    code, out, error = run("-c", ORDER)
    assert (code, error) == (0, "")
    assert out.splitlines() == [
        "threads False",
        "memory False",
        "dali True horovod False",
        "scipy False",
    ]


def test_rank_0_prints_the_help_and_opens_nothing():
    assert run("-c", ANSWER) == (0, "rank 1\nrank 0\noptim.lr: float, 0.1\n", "")


def test_the_version_is_printed():
    code, out, error = run("run_train.py", "--version")
    assert (code, error) == (0, "")
    assert re.fullmatch(r"face-training \S+ \(.+\)\n", out)


def test_a_usage_error_has_one_message_and_exit_code_2():
    code, out, error = run("run_train.py", "--cfg", "nowhere.yaml")
    assert (code, out) == (2, "")
    assert error.startswith("run_train: --cfg: no such file, got 'nowhere.yaml'; give a path ")
    assert error.count("\n") == 1
