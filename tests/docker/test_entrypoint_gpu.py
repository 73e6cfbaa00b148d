# SPDX-License-Identifier: Apache-2.0
"""Checks of the driver and the GPUs by the entrypoint of the GPU images."""

from __future__ import annotations

import pytest

from tests.docker.container import TRAIN


def test_the_gpu_image_without_gpus_is_refused(machine):
    machine.gpus(0)
    machine.shared_memory(8192)
    sentence = machine.refusal(*TRAIN)
    assert sentence.startswith("docker: no GPU is visible") and "add --gpus all" in sentence
    assert "got code 6 and 'No devices were found' from nvidia-smi;" in sentence
    machine.starts(*TRAIN, "run.device=cpu")


def test_the_gpu_image_without_nvidia_smi_is_refused(machine):
    machine.variables["IMAGE_DEVICE"] = "gpu"
    # The answer of bash to a missing program, on every machine.
    machine.program("nvidia-smi", "echo 'nvidia-smi: command not found' >&2; exit 127")
    assert "image, got no nvidia-smi; add --gpus all" in machine.refusal(*TRAIN)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("echo 'Unable to determine the device handle'; exit 15", "code 15 and 'Unable to"),
        ("echo 'Failed to initialize NVML' >&2; echo more; exit 9", "code 9 and 'Failed to"),
        ("exit 0", "code 0 and '' from nvidia-smi"),
    ],
)
def test_the_refusal_quotes_nvidia_smi(machine, answer, reason):
    machine.gpus(2)
    machine.program("nvidia-smi", answer)
    assert f"got {reason}" in machine.refusal(*TRAIN)


@pytest.mark.parametrize(
    ("driver", "capability"), [("470.182.03", ""), ("515.65.01", "8.0"), ("550.54.15", "8.0")]
)
def test_old_and_new_versions_of_nvidia_smi_are_supported(machine, driver, capability):
    machine.gpus(2, driver, capability)
    machine.shared_memory(8192)
    machine.starts(*TRAIN)
    known = capability or "unknown"
    line = f"GPUs: 2, driver {driver}, compute capability {known}\n"
    assert machine.starts("check", *TRAIN).startswith(line)
    # The number of GPUs is checked with old drivers too.
    assert "and 2 visible GPUs" in machine.refusal("horovodrun", "-np", "3", "run_train.py")


def test_a_missing_capability_is_unknown(machine):
    machine.gpus(2, capability="[N/A]")
    machine.shared_memory(8192)
    assert "compute capability unknown\n" in machine.starts("check", *TRAIN)


def test_the_stand_in_driver_is_used_on_the_cpu(machine):
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


def test_a_driver_that_is_too_old_is_refused(machine):
    machine.gpus(2, driver="440.118.02")
    assert "got 440.118.02; install 450.80.02 or newer" in machine.refusal(*TRAIN)


@pytest.mark.parametrize("driver", ["450.80.02", "525.60.13", "1000.1"])
def test_drivers_that_are_new_enough_start(machine, driver):
    machine.gpus(2, driver=driver)
    machine.shared_memory(8192)
    machine.starts(*TRAIN)


@pytest.mark.parametrize(
    ("driver", "supported"),
    [
        *[("545.23.06", True), ("550.54.15", True), ("1000.1", True)],
        *[("470.57.02", True), ("470.182.03", True), ("525.85.12", True), ("535.86.10", True)],
        *[("470.42.01", False), ("525.60.13", False), ("535.54.03", False)],
        *[("450.80.02", False), ("510.47.03", False), ("520.61.05", False), ("530.30.02", False)],
    ],
)
def test_forward_compatibility_supports_some_older_branches(machine, driver, supported):
    machine.gpus(2, driver=driver)
    machine.shared_memory(8192)
    machine.variables["IMAGE_MIN_DRIVER"] = "545"
    machine.variables["IMAGE_COMPAT_DRIVERS"] = "470.57 525.85 535.86"
    if supported:
        compat = " with CUDA's forward compatibility" in machine.starts("check", *TRAIN)
        assert compat == (driver < "545" and driver != "1000.1")
        machine.starts(*TRAIN)
    else:
        sentence = machine.refusal(*TRAIN)
        assert f"got {driver}; install 545 or newer on the host (data-centre GPUs: " in sentence
        assert "470.57 525.85 535.86" in sentence


def test_nvidias_entrypoint_executes_the_command(machine):
    nvidia = machine.folder / "nvidia_entrypoint.sh"
    machine.variables["IMAGE_ENTRYPOINT"] = str(nvidia)
    assert machine.starts("python", "two words").startswith("started: python two words\n")
    machine.program("../nvidia_entrypoint.sh", 'echo "banner"; exec "$@"')
    assert machine.starts("python", "two words").startswith("banner\nstarted: python two words\n")
    assert machine.starts(*TRAIN).startswith("banner\nstarted: horovodrun -np 2 ")
    assert "banner" not in machine.starts("check", *TRAIN)
    assert "banner" not in machine.starts()
    machine.program("python", "exit 143")
    assert machine.start("python", "run_train.py").returncode == 143
    machine.gpus(0)
    assert "no GPU is visible" in machine.refusal(*TRAIN)


def test_a_gpu_that_mxnet_does_not_support_is_refused(machine):
    machine.gpus(2, capability="9.0")
    sentence = machine.refusal(*TRAIN)
    assert "newer than compute capability 8.9, got 9.0" in sentence and "NGC" in sentence
    machine.variables["IMAGE_MAX_CAPABILITY"] = "9.0"
    machine.shared_memory(8192)
    machine.starts(*TRAIN)


def test_more_ranks_than_gpus_are_refused(machine):
    machine.gpus(1)
    assert "got 2 ranks on this host and 1 visible GPUs" in machine.refusal(*TRAIN)


@pytest.mark.parametrize(("ranks", "mib", "enough"), [(8, 1023, 0), (8, 1024, 1), (1, 64, 1)])
def test_nccl_needs_shared_memory_for_each_rank(machine, ranks, mib, enough):
    machine.gpus(8)
    machine.shared_memory(mib)
    command = ["horovodrun", "-np", str(ranks), "python", "run_train.py"]
    if enough:
        machine.starts(*command)
    else:
        sentence = machine.refusal(*command)
        assert "8 ranks need 1024 MiB of shared memory in /dev/shm, got 1023 MiB" in sentence
        assert sentence.endswith("add --shm-size=8g")


def test_make_train_starts_a_rank_per_gpu(machine):
    machine.gpus(4)
    machine.shared_memory(511)
    assert "4 ranks need 512 MiB" in machine.refusal("make", "train")
    machine.starts("make", "train", "NP=3")
    machine.starts("make", "train", "ARGS=run.device=cpu")


def test_the_ranks_of_one_host_are_checked(machine):
    machine.gpus(8)
    machine.shared_memory(1024)
    machine.starts("horovodrun", "-np", "16", "-H", "a:8,b:8", "python", "run_train.py")
    assert "16 ranks on this host" in machine.refusal(
        "horovodrun", "-np", "16", "python", "run_train.py"
    )
