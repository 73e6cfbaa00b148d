# SPDX-License-Identifier: Apache-2.0
"""What the driver is asked, against drivers compiled here, and which GPUs the wheel can use."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from launch.config.configuration import ConfigError
from launch.environment import gpu

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def use_driver(make_driver, monkeypatch):
    """Return ``use(capabilities)``, after which a driver with these GPUs is found."""

    def use(*capabilities: int, **options: int) -> None:
        monkeypatch.setattr(gpu, "DRIVER", str(make_driver(*capabilities, **options)))

    return use


@pytest.fixture
def from_wheel(monkeypatch):
    monkeypatch.setattr(gpu, "version", lambda name: {"mxnet-cu112": "1.9.1"}[name])


@pytest.fixture(autouse=True)
def fusion(monkeypatch):
    """Return the value of MXNET_USE_FUSION, unset before and after each test."""
    monkeypatch.setenv(gpu.FUSION_SWITCH, "")  # so that the end of the test sets it back
    monkeypatch.delenv(gpu.FUSION_SWITCH)
    return lambda: os.environ.get(gpu.FUSION_SWITCH)


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        *(((3, 7), False), ((5, 0), True), ((5, 2), True), ((6, 1), True), ((7, 0), True)),
        *(((7, 5), True), ((8, 0), True), ((8, 6), True), ((8, 9), True)),
        *(((9, 0), False), ((10, 0), False), ((12, 0), False)),
    ],
)
def test_code_of_the_same_major_number(capability, runs):
    assert gpu.has_code(capability) is runs


def test_what_the_driver_tells(use_driver):
    use_driver(61, 89)
    driver = gpu.Driver()
    assert driver.count() == 2
    assert driver.gpu(0) == gpu.Gpu("Fake GPU 0", (6, 1))
    assert str(driver.gpu(1)) == "Fake GPU 1 with compute capability 8.9"
    with pytest.raises(ConfigError, match=r"tells nothing of GPU 2, got 2 GPUs from it; see"):
        driver.gpu(2)


@pytest.mark.parametrize("capability", [61, 89])
def test_gpus_that_the_wheel_has_code_for(capability, use_driver, from_wheel):
    use_driver(37, capability)
    assert gpu.require_code(1) == ""


def test_the_version_of_the_driver(use_driver):
    use_driver(version=11040)
    assert (gpu.Driver().version(), gpu.Driver().count()) == (11040, 0)


@pytest.mark.parametrize(
    ("version", "said"), [(11000, "11.0"), (11040, "11.4"), (11070, "11.7"), (10020, "10.2")]
)
def test_fusion_is_off_with_drivers_that_refuse_its_code(
    version, said, use_driver, from_wheel, fusion
):
    use_driver(80, 80, version=version)
    assert gpu.require_code(1) == (
        f"driver: CUDA {said} is older than the 11.8 for which MXNet compiles fused pointwise "
        "operators, they are off (MXNET_USE_FUSION=0), which is slower; a driver from 520.61.05 on "
        "takes them"
    )
    assert fusion() == "0"


@pytest.mark.parametrize("version", [11080, 12000, 0])  # 0: it does not tell
def test_fusion_stays_on_with_newer_drivers(version, use_driver, from_wheel, fusion):
    use_driver(80, version=version)
    assert gpu.require_code(0) == ""
    assert fusion() is None


def test_fusion_that_the_user_has_set_is_left_alone(use_driver, from_wheel, fusion, monkeypatch):
    use_driver(80, version=11040)
    monkeypatch.setenv(gpu.FUSION_SWITCH, "0")
    assert "they are off (MXNET_USE_FUSION=0)" in gpu.require_code(0)
    monkeypatch.setenv(gpu.FUSION_SWITCH, "1")
    said = gpu.require_code(0)
    assert said.endswith(
        "got MXNET_USE_FUSION=1; the first step fails unless the driver is 520.61.05 or newer, or "
        "MXNET_USE_FUSION=0"
    )
    assert fusion() == "1"


@pytest.mark.parametrize("device", ["auto", "gpu"])
@pytest.mark.parametrize(("gpus", "ranks"), [(1, 1), (8, 8), (8, 2)])
def test_a_gpu_for_every_rank(device, gpus, ranks, use_driver, from_wheel):
    use_driver(*[80] * gpus, version=11040)
    on_gpu, notice = gpu.choose_device(device, gpus, ranks - 1, ranks)
    assert on_gpu and notice.startswith("driver: CUDA 11.4 is older than")


@pytest.mark.parametrize(
    ("gpus", "seen", "ranks"), [(7, "7 GPUs", 8), (1, "1 GPU", 8), (1, "1 GPU", 2)]
)
def test_fewer_gpus_than_ranks_are_no_choice(gpus, seen, ranks):
    for rank in range(ranks):  # all alike
        with pytest.raises(ConfigError) as caught:
            gpu.choose_device("auto", gpus, rank, ranks)
        assert str(caught.value) == (
            f"run.device: 'auto' wants a GPU for every rank or for none, got {ranks} ranks on this "
            f"host, MXNet sees {seen}; start {gpus} (-np {gpus}), or use run.device=cpu; under "
            "Slurm ask for GPUs by node, which all of its tasks see"
        )


@pytest.mark.parametrize("gpus", [0, 1])
def test_gpus_that_are_asked_for_and_missing(gpus):
    with pytest.raises(ConfigError, match=f"'gpu' needs 2 GPUs on this host, MXNet sees {gpus}; "):
        gpu.choose_device("gpu", gpus, 0, 2)


def test_the_cpu_asks_no_driver(from_wheel, monkeypatch):
    monkeypatch.setattr(gpu, "Driver", lambda: 1 / 0)
    assert gpu.choose_device("cpu", 0, 0, 2) == (False, "")


@pytest.mark.parametrize(
    ("capabilities", "version", "seen"),
    [
        ((), 12020, "the NVIDIA driver, for CUDA 12.2, sees 0 GPUs"),
        ((70,), 10020, "the NVIDIA driver, for CUDA 10.2, sees 1 GPU"),  # too old for CUDA 11
        (None, 0, "no NVIDIA driver can be loaded"),
    ],
)
def test_the_cpu_in_the_place_of_gpus_is_told(
    capabilities, version, seen, use_driver, from_wheel, monkeypatch
):
    if capabilities is None:
        monkeypatch.setattr(gpu, "DRIVER", "no-such-driver.so")
    else:
        use_driver(*capabilities, version=version)
    assert gpu.choose_device("auto", 0, 0, 2) == (
        False,
        f"device: computes on the CPU, mxnet-cu112 1.9.1 is installed and MXNet sees no GPU "
        f"({seen}); see nvidia-smi and CUDA_VISIBLE_DEVICES, or ask for the CPU by its name",
    )


@pytest.mark.parametrize(("capability", "said"), [(90, "9.0"), (37, "3.7")])
def test_gpus_that_the_wheel_has_no_code_for(capability, said, use_driver, from_wheel):
    use_driver(80, capability)
    with pytest.raises(ConfigError) as caught:
        gpu.require_code(1)
    assert str(caught.value) == (
        "run.device: mxnet-cu112 1.9.1 holds machine code for compute capabilities 5.0, 6.0, 7.0, "
        f"8.0, 8.6 and runs on 5.x to 8.x, got Fake GPU 1 with compute capability {said} as GPU 1; "
        "use NVIDIA's NGC MXNet image 24.06, see docker/README.md, or run.device=cpu"
    )


def test_another_mxnet_is_not_asked_about(monkeypatch):
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(gpu, "version", absent)
    monkeypatch.setattr(gpu, "DRIVER", "no-such-driver.so")  # it would fail if it were loaded
    assert gpu.require_code(0) == ""
    assert gpu.choose_device("auto", 0, 0, 1) == (False, "")


def test_the_stand_in_has_no_gpu(tmp_path, monkeypatch):
    library = tmp_path / "libcuda.so.1"
    source = ROOT / "launch/environment/stand_in_driver.c"
    subprocess.run(["g++", "-x", "c", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(gpu, "DRIVER", str(library))
    assert (gpu.Driver().count(), gpu.Driver().version()) == (0, 0)
    with pytest.raises(ConfigError, match="tells nothing of GPU 0, got 0 GPUs"):
        gpu.Driver().gpu(0)


def test_the_command_counts(use_driver, monkeypatch, capsys):
    use_driver(80, 80, 80)
    assert gpu.main() == 0
    assert capsys.readouterr().out == "3\n"
    monkeypatch.setattr(gpu, "DRIVER", "no-such-driver.so")
    assert gpu.main() == 1
    assert capsys.readouterr().out == ""
