# SPDX-License-Identifier: Apache-2.0
"""The first process of the images, in an environment made of stand-ins for the host's programs."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docker" / "entrypoint.sh"
TRAIN = ["horovodrun", "-np", "2", "python", "run_train.py", "--cfg", "demo.yaml"]
# Stands for every command: says with what it was started, and where its HOME is.
ECHO = 'echo "started: $(basename "$0") $*"; echo "home: $HOME"'


@dataclass
class Machine:
    """A container as the script sees it; ``start`` runs the script in it."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def program(self, name: str, script: str) -> None:
        """Put a program in front of the machine's own."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def shared_memory(self, mib: int) -> None:
        self.program("df", f"printf '1M-blocks\\n   {mib}M\\n'")

    def gpus(self, count: int, driver: str = "525.60.13", capability: str = "8.0") -> None:
        """Show GPUs to an image that was built for them."""
        line = f"echo '{driver}, {capability}'"
        self.program("nvidia-smi", "\n".join([line] * count) or "exit 9")
        self.variables |= {
            "IMAGE_DEVICE": "gpu",
            "IMAGE_MIN_DRIVER": "450.80.02",
            "IMAGE_MAX_CAPABILITY": "8.9",
        }

    def start(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
        }
        return subprocess.run(
            ["bash", str(SCRIPT), *command],
            cwd=self.folder,
            env=environment | self.variables,
            capture_output=True,
            text=True,
        )

    def refusal(self, *command: str) -> str:
        """Return the one sentence with which a command is refused."""
        done = self.start(*command)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.count("\n") == 1
        return done.stderr.strip()

    def starts(self, *command: str) -> str:
        """Return what a command says that is let through."""
        done = self.start(*command)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine of the CPU image in which nothing is wrong."""
    made = Machine(tmp_path)
    for name in ("horovodrun", "make", "python"):
        made.program(name, ECHO)
    made.program("hostname", "echo node7")
    made.program("getent", "exit 0")
    made.shared_memory(64)
    return made


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


def test_gpu_image_without_gpus(machine):
    machine.gpus(0)
    machine.shared_memory(8192)
    sentence = machine.refusal(*TRAIN)
    assert sentence.startswith("docker: no GPU is visible") and "add --gpus all" in sentence
    machine.starts(*TRAIN, "run.device=cpu")


def test_on_the_cpu_a_stand_in_takes_the_place_of_the_driver(machine):
    machine.gpus(0)
    machine.program("horovodrun", 'echo "libraries: ${LD_LIBRARY_PATH-}"')
    machine.program("ldconfig", "exit 0")
    machine.variables |= {"VENV": ".venv-gpu", "LD_LIBRARY_PATH": "/before"}
    stand_in = machine.folder / ".venv-gpu" / "stand-in"
    command = [*TRAIN, "run.device=cpu"]
    assert machine.starts(*command) == "libraries: /before\n"
    stand_in.mkdir(parents=True)
    (stand_in / "libcuda.so.1").touch()
    assert machine.starts(*command) == f"libraries: {stand_in}:/before\n"
    machine.program("ldconfig", "echo '  libcuda.so.1 (libc6,x86-64) => /usr/lib/libcuda.so.1'")
    assert machine.starts(*command) == "libraries: /before\n"


def test_driver_too_old(machine):
    machine.gpus(2, driver="440.118.02")
    assert "got 440.118.02; install 450.80.02 or newer" in machine.refusal(*TRAIN)


@pytest.mark.parametrize("driver", ["450.80.02", "525.60.13", "1000.1"])
def test_drivers_that_do(machine, driver):
    machine.gpus(2, driver=driver)
    machine.shared_memory(8192)
    machine.starts(*TRAIN)


def test_gpu_that_mxnet_has_no_code_for(machine):
    machine.gpus(2, capability="9.0")
    sentence = machine.refusal(*TRAIN)
    assert "newer than compute capability 8.9, got 9.0" in sentence and "NGC" in sentence
    machine.variables["IMAGE_MAX_CAPABILITY"] = "9.0"
    machine.shared_memory(8192)
    machine.starts(*TRAIN)


def test_more_ranks_than_gpus(machine):
    machine.gpus(1)
    assert "got 2 ranks on this host and 1 visible GPUs" in machine.refusal(*TRAIN)


@pytest.mark.parametrize(("ranks", "mib", "enough"), [(8, 1023, 0), (8, 1024, 1), (1, 64, 1)])
def test_shared_memory_for_nccl(machine, ranks, mib, enough):
    machine.gpus(8)
    machine.shared_memory(mib)
    command = ["horovodrun", "-np", str(ranks), "python", "run_train.py"]
    if enough:
        machine.starts(*command)
    else:
        sentence = machine.refusal(*command)
        assert "8 ranks need 1024 MiB of shared memory in /dev/shm, got 1023 MiB" in sentence
        assert sentence.endswith("add --shm-size=8g")


def test_make_train_takes_all_gpus(machine):
    machine.gpus(4)
    machine.shared_memory(511)
    assert "4 ranks need 512 MiB" in machine.refusal("make", "train")
    machine.starts("make", "train", "NP=3")
    machine.starts("make", "train", "ARGS=run.device=cpu")


def test_of_several_hosts_the_ranks_of_one_count(machine):
    machine.gpus(8)
    machine.shared_memory(1024)
    machine.starts("horovodrun", "-np", "16", "-H", "a:8,b:8", "python", "run_train.py")
    assert "16 ranks on this host" in machine.refusal(
        "horovodrun", "-np", "16", "python", "run_train.py"
    )


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
