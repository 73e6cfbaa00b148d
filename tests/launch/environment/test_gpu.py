# SPDX-License-Identifier: Apache-2.0
"""GPUs, drivers and the choice of the device, with stub drivers that the tests compile."""

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
    """Return ``use(*capabilities)``, which installs a stub driver with these GPUs."""

    def use(*capabilities: int, **options: int) -> None:
        monkeypatch.setattr(gpu, "DRIVER", str(make_driver(*capabilities, **options)))

    return use


@pytest.fixture
def from_wheel(monkeypatch):
    monkeypatch.setattr(gpu, "version", lambda name: {"mxnet-cu112": "1.9.1"}[name])


@pytest.fixture(autouse=True)
def fusion(monkeypatch):
    """Unset MXNET_USE_FUSION during a test; return a function that reads it."""
    monkeypatch.setenv(gpu.FUSION_VARIABLE, "")  # makes monkeypatch restore it
    monkeypatch.delenv(gpu.FUSION_VARIABLE)
    return lambda: os.environ.get(gpu.FUSION_VARIABLE)


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        *(((3, 7), False), ((5, 0), True), ((5, 2), True), ((6, 1), True), ((7, 0), True)),
        *(((7, 5), True), ((8, 0), True), ((8, 6), True), ((8, 9), True)),
        *(((9, 0), False), ((10, 0), False), ((12, 0), False)),
    ],
)
def test_machine_code_supports_equal_major_and_higher_minor_capability(capability, runs):
    assert gpu.supports_capability(capability) is runs


def test_the_driver_reports_names_and_capabilities(use_driver):
    use_driver(61, 89)
    driver = gpu.Driver()
    assert driver.count() == 2
    assert driver.gpu(0) == gpu.Gpu("Fake GPU 0", (6, 1))
    assert str(driver.gpu(1)) == "Fake GPU 1 with compute capability 8.9"
    with pytest.raises(
        ConfigError, match=r"does not report GPU 2, got 2 GPUs from the driver; check"
    ):
        driver.gpu(2)


@pytest.mark.parametrize("capability", [61, 89])
def test_gpus_that_the_wheel_supports(capability, use_driver, from_wheel):
    use_driver(37, capability)
    assert gpu.require_supported_gpu(1) == ""


def test_a_driver_without_gpus_reports_its_version(use_driver):
    use_driver(version=11040)
    assert (gpu.Driver().version(), gpu.Driver().count()) == (11040, 0)


@pytest.mark.parametrize(
    ("version", "release"), [(11000, "11.0"), (11040, "11.4"), (11070, "11.7"), (10020, "10.2")]
)
def test_fusion_is_disabled_with_older_drivers(version, release, use_driver, from_wheel, fusion):
    use_driver(80, 80, version=version)
    assert gpu.require_supported_gpu(1) == (
        f"driver: MXNet's operator fusion requires CUDA 11.8, got a driver for CUDA {release}; "
        "fusion is off (MXNET_USE_FUSION=0), which is slower: install driver 520.61.05 or newer"
    )
    assert fusion() == "0"


@pytest.mark.parametrize("version", [11080, 12000, 0])  # 0: unknown
def test_fusion_stays_enabled_with_newer_drivers(version, use_driver, from_wheel, fusion):
    use_driver(80, version=version)
    assert gpu.require_supported_gpu(0) == ""
    assert fusion() is None


def test_the_fusion_setting_of_the_user_has_precedence(use_driver, from_wheel, fusion, monkeypatch):
    use_driver(80, version=11040)
    monkeypatch.setenv(gpu.FUSION_VARIABLE, "0")
    assert "fusion is off (MXNET_USE_FUSION=0)" in gpu.require_supported_gpu(0)
    monkeypatch.setenv(gpu.FUSION_VARIABLE, "1")
    message = gpu.require_supported_gpu(0)
    assert message.endswith(
        " and MXNET_USE_FUSION=1; the first training step will fail; set MXNET_USE_FUSION=0, or "
        "install driver 520.61.05 or newer"
    )
    assert fusion() == "1"


@pytest.mark.parametrize("device", ["auto", "gpu"])
@pytest.mark.parametrize(("gpus", "ranks"), [(1, 1), (8, 8), (8, 2)])
def test_every_rank_gets_a_gpu(device, gpus, ranks, use_driver, from_wheel):
    use_driver(*[80] * gpus, version=11040)
    on_gpu, notice = gpu.choose_device(device, gpus, ranks - 1, ranks)
    assert on_gpu and notice.startswith("driver: MXNet's operator fusion requires")


@pytest.mark.parametrize(
    ("gpus", "seen", "ranks"), [(7, "7 GPUs", 8), (1, "1 GPU", 8), (1, "1 GPU", 2)]
)
def test_fewer_gpus_than_ranks_are_refused_on_every_rank(gpus, seen, ranks):
    for rank in range(ranks):
        with pytest.raises(ConfigError) as caught:
            gpu.choose_device("auto", gpus, rank, ranks)
        assert str(caught.value) == (
            f"run.device: 'auto' requires one GPU per rank, got {ranks} ranks and {seen} on this "
            f"host; start at most {gpus} of the ranks (-np {gpus}), or use run.device=cpu; under "
            "Slurm request GPUs per node, so that every task sees all GPUs of its node"
        )


@pytest.mark.parametrize("gpus", [0, 1])
def test_missing_gpus_are_refused(gpus):
    with pytest.raises(
        ConfigError, match=f"requires a GPU for each of the 2 ranks on this host, got {gpus}; "
    ):
        gpu.choose_device("gpu", gpus, 0, 2)


def test_the_cpu_needs_no_driver(from_wheel, monkeypatch):
    monkeypatch.setattr(gpu, "Driver", lambda: 1 / 0)
    assert gpu.choose_device("cpu", 0, 0, 2) == (False, "")


@pytest.mark.parametrize(
    ("capabilities", "version", "seen"),
    [
        ((), 12020, "the NVIDIA driver for CUDA 12.2 reports 0 GPUs"),
        ((70,), 10020, "the NVIDIA driver for CUDA 10.2 reports 1 GPU"),  # too old for CUDA 11
        (None, 0, "no NVIDIA driver can be loaded"),
    ],
)
def test_a_notice_explains_why_the_cpu_is_used(
    capabilities, version, seen, use_driver, from_wheel, monkeypatch
):
    if capabilities is None:
        monkeypatch.setattr(gpu, "DRIVER", "no-such-driver.so")
    else:
        use_driver(*capabilities, version=version)
    assert gpu.choose_device("auto", 0, 0, 2) == (
        False,
        f"device: this process uses the CPU, because mxnet-cu112 1.9.1 sees no GPU ({seen}); check "
        "nvidia-smi and CUDA_VISIBLE_DEVICES, or choose the CPU explicitly to hide this notice",
    )


@pytest.mark.parametrize(("capability", "shown"), [(90, "9.0"), (37, "3.7")])
def test_gpus_that_the_wheel_does_not_support_are_refused(
    capability, shown, use_driver, from_wheel
):
    use_driver(80, capability)
    with pytest.raises(ConfigError) as caught:
        gpu.require_supported_gpu(1)
    assert str(caught.value) == (
        "run.device: mxnet-cu112 1.9.1 supports GPUs with compute capability 5.0 to 8.9, got "
        f"Fake GPU 1 with compute capability {shown} as GPU 1; use NVIDIA's NGC MXNet image 24.06 "
        "(docker/README.md), or run.device=cpu"
    )


def test_other_builds_of_mxnet_are_not_checked(monkeypatch):
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(gpu, "version", absent)
    monkeypatch.setattr(gpu, "DRIVER", "no-such-driver.so")  # loading it would fail
    assert gpu.require_supported_gpu(0) == ""
    assert gpu.choose_device("auto", 0, 0, 1) == (False, "")


def test_the_stub_driver_reports_no_gpu(tmp_path, monkeypatch):
    library = tmp_path / "libcuda.so.1"
    source = ROOT / "launch/environment/stub_driver.c"
    subprocess.run(["g++", "-x", "c", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(gpu, "DRIVER", str(library))
    assert (gpu.Driver().count(), gpu.Driver().version()) == (0, 0)
    with pytest.raises(ConfigError, match="does not report GPU 0, got 0 GPUs"):
        gpu.Driver().gpu(0)


def test_the_command_prints_the_number_of_gpus(use_driver, monkeypatch, capsys):
    use_driver(80, 80, 80)
    assert gpu.main() == 0
    assert capsys.readouterr().out == "3\n"
    monkeypatch.setattr(gpu, "DRIVER", "no-such-driver.so")
    assert gpu.main() == 1
    assert capsys.readouterr().out == ""
