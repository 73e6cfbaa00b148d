# SPDX-License-Identifier: Apache-2.0
"""The first process of the images, in an environment made of stand-ins for the host's programs."""

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


def test_becomes_the_command_with_its_arguments(machine):
    machine.program("horovodrun", 'printf "<%s>" "$@"; exit 7')
    done = machine.start(*TRAIN, "run.name=two words")
    assert done.returncode == 7
    assert done.stdout == "<-np><2><python><run_train.py><--cfg><demo.yaml><run.name=two words>"


@pytest.mark.parametrize("command", [("python", "-c", "1"), ("make", "test"), ("make", "help")])
def test_other_commands_are_not_checked(machine, command):
    machine.gpus(0)
    machine.program("getent", "exit 2")
    assert machine.starts(*command).startswith(f"started: {' '.join(command)}\n")


def test_gloo_needs_no_shared_memory_but_worker_processes_do(machine):
    machine.starts(*TRAIN)
    sentence = machine.refusal(*TRAIN, "data.loader=cpu")
    assert "2 ranks need 128 MiB" in sentence
    assert sentence.endswith("got 64 MiB; add --shm-size=8g")
    assert machine.refusal("make", "train", "NP=2", "ARGS=a.b=1 data.loader=cpu") == sentence


def test_host_name_that_cannot_be_looked_up(machine):
    machine.program("getent", '[ "$*" = "ahosts node7" ] && exit 2')
    sentence = machine.refusal(*TRAIN)
    assert "got 'node7'; add --add-host node7:127.0.0.1" in sentence
    assert machine.refusal("make", "train") == sentence
    machine.starts("python", "run_train.py", "--cfg", "demo.yaml")  # one rank asks nobody


def test_run_folder_that_cannot_be_written_to(machine):
    # Not even root makes a folder there.
    sentence = machine.refusal(*TRAIN, "run.dir=/proc/runs")
    assert sentence.startswith("docker: the run folder cannot be written to by user")
    assert f"user {os.getuid()}, got '/proc/runs'" in sentence
    assert "-v RUNS:/proc/runs and add --user $(id -u):$(id -g)" in sentence


def test_probing_the_folders_leaves_nothing(machine):
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
def test_records_that_are_not_there(machine, command):
    assert "got '/data/none'; mount them with -v FOLDER:/data/none:ro" in machine.refusal(*command)


@pytest.mark.parametrize("records", ["my faces", "[my faces, others]", "${FACES_DIR}", ""])
def test_records_that_are_there_or_cannot_be_judged(machine, records):
    (machine.folder / "my faces").mkdir()
    machine.starts(*TRAIN, f"data.records={records}")


def test_sample_that_cannot_be_rendered(machine):
    (machine.folder / "data").write_text("in the way of a folder")
    assert "the sample faces cannot be written" in machine.refusal("make", "train")
    (machine.folder / "faces").mkdir()
    machine.starts("make", "train", "DATA=faces")


def test_check_tells_what_it_found_and_starts_nothing(machine):
    machine.gpus(8, driver="535.1")
    machine.shared_memory(2048)
    text = machine.starts("check", *TRAIN)
    assert "GPUs: 8, driver 535.1, compute capability 8.0\n" in text
    assert "shared memory: 2048 MiB\n" in text
    assert "host name: node7 can be looked up\n" in text
    assert f"run folder: runs can be written to by user {os.getuid()}\n" in text
    assert "started" not in text


def test_a_home_for_users_without_one(machine):
    machine.variables["HOME"] = "/proc/home"
    home = Path(machine.starts("python").split("home: ")[1].strip())
    assert home.is_dir() and home != Path("/proc/home")
    home.rmdir()


def test_exit_code_is_that_of_the_command(machine):
    machine.program("python", "exit 143")
    assert machine.start("python", "run_train.py").returncode == 143
