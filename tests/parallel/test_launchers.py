# SPDX-License-Identifier: Apache-2.0
"""Real ranks under every launcher: losses, error messages, exit codes and stops.

fake_srun.py replaces srun; launcher, rendezvous and ranks communicate as in a real job.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.parallel.ranks import HERE, Ranks, RunResult, read_losses, run, training, write_cfg

pytestmark = pytest.mark.parallel

STEPS = 5
COMPANION = HERE.parents[1] / "launch" / "ranks" / "companion.py"
TRAIN = HERE.parents[1] / "run_train.py"


def slurm_job(folder: Path, tasks_per_node: tuple[int, ...]) -> dict[str, str]:
    """Return the environment of a job on nodes node0, node1, ..., with fake srun and scancel."""
    tasks, arguments = folder / "tasks", "--quiet --signal=TERM 7"
    scripts = {
        "srun": f"exec {shlex.join([sys.executable, str(HERE / 'fake_srun.py')])} \"$@\"",
        "scancel": f'[ "$*" = "{arguments}" ] && kill -TERM $(cat {shlex.quote(str(tasks))})',
    }
    (folder / "bin").mkdir()
    for name, line in scripts.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / "bin" / name).chmod(0o755)
    counts = ",".join(map(str, tasks_per_node))
    return {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": f"node[0-{len(tasks_per_node) - 1}]",
        "SLURM_NTASKS": str(sum(tasks_per_node)),
        "SLURM_TASKS_PER_NODE": counts,
        "FAKE_TASKS": counts,
        "FAKE_TASKS_FILE": str(tasks),
    }


LAUNCHERS = {
    "local": ("launch.local", "-np", "2"),
    "hosts": ("launch.hosts", "-H", "localhost:4", "-np", "2"),
    "slurm one node": ("launch.slurm",),
    "slurm two nodes": ("launch.slurm", "--network-interface", "lo"),
}


def launcher(name: str, folder: Path, cfg: Path, *overrides: str) -> Ranks:
    """Return a launcher that will train on two ranks."""
    nodes = (1, 1) if "two nodes" in name else (2,)
    environment = slurm_job(folder, nodes) if "slurm" in name else {}
    program = ["-m", *LAUNCHERS[name], "--cfg", str(cfg), *overrides]
    return Ranks(1, program, environment)


def launch(name: str, folder: Path, cfg: Path, *overrides: str) -> RunResult:
    with launcher(name, folder, cfg, *overrides) as ranks:
        return ranks.wait()


@pytest.fixture(scope="module")
def horovodrun_losses(tiny_records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("horovodrun")
    cfg = write_cfg(folder, tiny_records, train={"max_steps": STEPS})
    ended = run(2, training(cfg))
    assert ended.code == 0, ended.everything
    return read_losses(folder / "runs" / "tiny-001")


@pytest.mark.parametrize("name", ["local", "slurm two nodes"])
def test_a_launcher_gives_the_losses_of_horovodrun(name, horovodrun_losses, tiny_records, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records, train={"max_steps": STEPS})
    ended = launch(name, tmp_path, cfg)
    assert ended.code == 0, ended.everything
    assert ended.stderr == ""
    assert ended.stdout.startswith("run ") and "ranks 2" in ended.stdout
    assert ended.stdout.count(f"step {STEPS}/{STEPS}") == 1
    losses = read_losses(tmp_path / "runs" / "tiny-001")
    assert len(losses) == STEPS and losses == horovodrun_losses


@pytest.mark.parametrize("name", ["hosts", "slurm two nodes"])
def test_an_error_gives_one_message_and_exit_code_2(name, tiny_records, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records)
    ended = launch(name, tmp_path, cfg, "data.batch_size=100")
    assert ended.code == 2, ended.everything
    assert ended.stdout == ""
    assert ended.stderr.startswith("run_train: data.batch_size: 100 x 2 ranks needs 200 images")
    assert ended.stderr.count("\n") == 0


def test_sigterm_stops_all_ranks_at_one_step(tiny_records, tmp_path):
    # tests/parallel/end_often.py stops every launcher.
    name = "slurm one node"
    cfg = write_cfg(tmp_path, tiny_records, train={"max_steps": 100000, "log_every": 1})
    with launcher(name, tmp_path, cfg) as ranks:
        ranks.until(lambda: "step 2/" in ranks.output().stdout)
        ranks.terminate()
        ended = ranks.wait()
    assert ended.code == 143, ended.everything
    assert ended.stderr.startswith("run_train: stopped at step ")
    assert ended.stderr.count("\n") == 0


@pytest.mark.parametrize("whole", [False, True], ids=["rank", "rank and companion"])
def test_a_killed_rank_is_named_in_one_message(whole, tiny_records, tmp_path):
    rank = 0  # the rank that prints the messages of all ranks
    cfg = write_cfg(tmp_path, tiny_records, train={"max_steps": 100000, "log_every": 1})
    with launcher("local", tmp_path, cfg) as ranks:
        ranks.until(lambda: "step 2/" in ranks.output().stdout)
        if whole:  # as if the memory of a container were exhausted
            os.kill(ranks.pids_of(COMPANION)[rank], signal.SIGKILL)
        os.kill(ranks.pids_of(TRAIN)[rank], signal.SIGKILL)
        ended = ranks.wait()
    assert ended.code == 137, ended.everything
    assert ended.stderr.startswith(
        f"run_train: rank {rank} on {socket.gethostname()} was killed by signal 9 (SIGKILL); "
    )
    assert ended.stderr.count("\n") == 0, ended.everything
