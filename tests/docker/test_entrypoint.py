# SPDX-License-Identifier: Apache-2.0
"""Entrypoint of the images, in a simulated container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docker.container import TRAIN


def test_no_command_prints_the_usage(machine):
    text = machine.starts()
    assert text.startswith("docker run [OPTIONS] IMAGE COMMAND\n")
    assert "horovodrun -np 8 python run_train.py --cfg mbf_arcface.yaml" in text
    assert not (machine.folder / "runs").exists()


def test_the_command_gets_its_arguments_and_returns_its_exit_code(machine):
    machine.program("horovodrun", 'printf "<%s>" "$@"; exit 7')
    done = machine.start(*TRAIN, "run.name=two words")
    assert done.returncode == 7
    assert done.stdout == "<-np><2><python><run_train.py><--cfg><demo.yaml><run.name=two words>"


@pytest.mark.parametrize("command", [("python", "-c", "1"), ("make", "test"), ("make", "help")])
def test_other_commands_are_not_checked(machine, command):
    machine.gpus(0)
    machine.program("getent", "exit 2")
    assert machine.starts(*command).startswith(f"started: {' '.join(command)}\n")


def test_worker_processes_need_shared_memory_and_gloo_needs_none(machine):
    machine.starts(*TRAIN)
    sentence = machine.refusal(*TRAIN, "data.loader=cpu")
    assert "2 ranks need 128 MiB" in sentence
    assert sentence.endswith("got 64 MiB; add --shm-size=8g")
    assert machine.refusal("make", "train", "NP=2", "ARGS=a.b=1 data.loader=cpu") == sentence


def test_a_host_name_that_cannot_be_resolved_is_refused(machine):
    machine.program("getent", '[ "$*" = "ahosts node7" ] && exit 2')
    sentence = machine.refusal(*TRAIN)
    assert "got 'node7'; add --add-host node7:127.0.0.1" in sentence
    assert machine.refusal("make", "train") == sentence
    machine.starts("python", "run_train.py", "--cfg", "demo.yaml")  # one rank resolves no name


def test_a_run_folder_that_is_not_writable_is_refused(machine):
    # Not even root can create a folder there.
    sentence = machine.refusal(*TRAIN, "run.dir=/proc/runs")
    who = f"docker: user {os.getuid()} cannot write to the run folder, got '/proc/runs'"
    assert sentence.startswith(who)
    assert "-v RUNS:/proc/runs and add --user $(id -u):$(id -g)" in sentence


def test_the_check_of_folders_leaves_no_files(machine):
    machine.starts(*TRAIN)
    assert not list((machine.folder / "runs").iterdir())
    assert not list((machine.folder / "home").iterdir())


@pytest.mark.parametrize(
    "command",
    [
        (*TRAIN, "data.records=/data/none"),
        ("make", "train", "DATA=/data/none"),
        ("make", "train", "ARGS=train.max_steps=1 data.records=/data/none"),
    ],
)
def test_missing_records_are_refused(machine, command):
    assert "got '/data/none'; mount them with -v FOLDER:/data/none:ro" in machine.refusal(*command)


@pytest.mark.parametrize("records", ["my faces", "[my faces, others]", "${FACES_DIR}", ""])
def test_records_that_exist_or_cannot_be_checked_start(machine, records):
    (machine.folder / "my faces").mkdir()
    machine.starts(*TRAIN, f"data.records={records}")


def test_a_data_folder_that_is_not_writable_is_refused_for_the_sample(machine):
    (machine.folder / "data").write_text("a file instead of a folder")
    assert "cannot write the sample faces" in machine.refusal("make", "train")
    (machine.folder / "faces").mkdir()
    machine.starts("make", "train", "DATA=faces")


def test_check_prints_its_findings_and_starts_nothing(machine):
    machine.gpus(8, driver="535.1")
    machine.shared_memory(2048)
    text = machine.starts("check", *TRAIN)
    assert "GPUs: 8, driver 535.1, compute capability 8.0\n" in text
    assert "shared memory: 2048 MiB\n" in text
    assert "host name: node7 can be resolved\n" in text
    assert f"run folder: user {os.getuid()} can write to runs\n" in text
    assert "started" not in text


def test_a_user_without_a_home_gets_a_temporary_one(machine):
    machine.variables["HOME"] = "/proc/home"
    home = Path(machine.starts("python").split("home: ")[1].strip())
    assert home.is_dir() and home != Path("/proc/home")
    home.rmdir()
