# SPDX-License-Identifier: Apache-2.0
"""The launcher for a Slurm job: dry run, errors, messages of srun, and requests to stop.

tests/parallel/test_launchers.py starts real ranks with it.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from launch.launchers import slurm
from launch.launchers.slurm import SrunReader
from launch.launchers.supervise import print_output

ROOT = Path(__file__).resolve().parents[3]
JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "gpu[01-02]",
    "SLURM_NTASKS": "16",
    "SLURM_TASKS_PER_NODE": "8(x2)",
}


@pytest.fixture
def environment(monkeypatch):
    variables = dict(JOB)
    monkeypatch.setattr(os, "environ", variables)
    return variables


@pytest.fixture(autouse=True)
def unchecked_configuration(monkeypatch):
    """Skip the check of the configuration, which starts run_train.py and does not exist here."""
    monkeypatch.setattr(slurm, "check_configuration", lambda *_: 0)


def dry_run(capsys, *argv: str) -> tuple[list[str], list[str]]:
    assert slurm.main([*argv, "--dry-run", "--cfg", "x.yaml", "data.records=/a b"]) == 0
    *plan, command = capsys.readouterr().out.splitlines()
    return plan, shlex.split(command.removeprefix("command: "))


def test_a_dry_run_prints_plan_and_command(environment, capsys, monkeypatch):
    monkeypatch.setattr(slurm, "supervise", lambda *_: pytest.fail("something was started"))
    plan, command = dry_run(capsys)
    assert plan[1:4] == ["gpu01  0-7", "gpu02  8-15", "total: 16 ranks on 2 hosts"]
    assert command == [
        *("srun", "--nodes=2", "--ntasks=16", "--ntasks-per-node=8", "--distribution=block"),
        *("--kill-on-bad-exit=1", "--input=none", "--unbuffered", f"--chdir={ROOT}"),
        *(sys.executable, "-m", "launch.launchers.slurm_rank", "--rendezvous", "ADDRESS:PORT"),
        *("--cfg", "x.yaml", "data.records=/a b"),
    ]


def test_cores_per_task_and_interface_are_passed_to_srun(environment, capsys):
    environment["SLURM_CPUS_PER_TASK"] = "6"
    _, command = dry_run(capsys, "--network-interface", "eth1")
    assert "--cpus-per-task=6" in command
    index = command.index("--network-interface")
    assert command[index + 1] == "eth1" and index > command.index("launch.launchers.slurm_rank")


def test_a_dry_run_checks_the_configuration(environment, capsys, monkeypatch):
    monkeypatch.setattr(slurm, "check_configuration", lambda train, arguments, _: len(arguments))
    assert slurm.main(["--dry-run", "--cfg", "nosuch.yaml"]) == 2
    assert capsys.readouterr().out == ""


def test_unequal_nodes_have_no_ntasks_per_node(environment, capsys):
    environment |= {"SLURM_TASKS_PER_NODE": "8,4", "SLURM_NTASKS": "12"}
    plan, command = dry_run(capsys)
    assert plan[2] == "gpu02  8-11"
    assert not [word for word in command if word.startswith("--ntasks-per-node")]


@pytest.mark.parametrize("argv", [[], ["--dry-run"]])
def test_outside_a_job_the_launcher_is_refused(argv, environment, capsys):
    environment.clear()
    assert slurm.main(argv) == 2
    assert capsys.readouterr().err == (
        "launch.slurm: must run inside a Slurm job, got no SLURM_JOB_ID; start it from a job file "
        "(docs/clusters.md) or after salloc, or use launch.local or launch.hosts\n"
    )


REFUSED = """\
run_train: data.records: no such file
srun: error: gpu01: task 0: Exited with exit code 2
srun: launch/slurm: _step_signal: Terminating StepId=1.0
slurmstepd-gpu01: error: *** STEP 1.0 ON gpu01 CANCELLED AT 2026-11-23T06:42:10 ***
srun: error: gpu02: tasks 8-15: Killed
"""
KILLED = """\
srun: error: gpu02: task 9: Killed
srun: error: gpu01: tasks 0,2-7: Terminated
"""


@pytest.mark.parametrize(
    ("message", "code", "shown"),
    [
        (REFUSED, 2, "run_train: data.records: no such file\n"),
        (KILLED, 137, KILLED),
        ("srun: error: gpu01: tasks 0-7: Exited with exit code 143\n", 143, ""),
        ("srun: error: gpu01: task 3: Segmentation fault\n", 139, None),
        ("srun: error: gpu01: task 3: Out Of Memory\n", 1, None),
        ("srun: Job step creation temporarily disabled, retrying\n", None, None),
    ],
    ids=["refused", "killed", "stopped", "crashed", "other", "nothing ended"],
)
def test_the_first_exit_message_of_srun_is_the_exit_code(message, code, shown, capsys):
    reader = SrunReader("7")
    print_output(io.StringIO(message), "stderr", reader, None)
    assert reader.code == code
    assert capsys.readouterr().err == (message if shown is None else shown)


def test_output_of_a_rank_is_not_parsed_as_a_message_of_srun(capsys):
    reader = SrunReader("7")
    text = "srun: error: x: task 0: Exited with exit code 2\n"
    print_output(io.StringIO(text), "stdout", reader, None)
    assert reader.code is None and capsys.readouterr().out == text


def test_the_first_request_to_stop_uses_scancel_and_the_second_sigterm(tmp_path, monkeypatch):
    scancel = tmp_path / "scancel"
    scancel.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scancel.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sent, started = [], []
    popen = slurm.subprocess.Popen
    monkeypatch.setattr(
        slurm.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1]
    )

    class Srun:
        send_signal = staticmethod(sent.append)

    reader = SrunReader("7")
    reader.stop(Srun())
    assert started[0].wait() == 0
    assert (tmp_path / "asked").read_text() == "--quiet --signal=TERM 7\n" and sent == []
    reader.stop(Srun())  # the second request stops the ranks at once
    assert sent == [signal.SIGTERM] and len(started) == 1
