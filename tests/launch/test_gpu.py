# SPDX-License-Identifier: Apache-2.0
"""What the driver is asked, against drivers compiled here, and which GPUs the wheel can use."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from launch import gpu
from launch.config import ConfigError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def use_driver(make_driver, monkeypatch):
    """Return ``use(capabilities)``, after which launch.gpu finds a driver with these GPUs."""

    def use(*capabilities: int) -> None:
        monkeypatch.setattr(gpu, "DRIVER", str(make_driver(*capabilities)))

    return use


@pytest.fixture
def from_wheel(monkeypatch):
    monkeypatch.setattr(gpu, "version", lambda name: {"mxnet-cu112": "1.9.1"}[name])


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
    gpu.require_code(1)


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
    gpu.require_code(0)


def test_the_stand_in_has_no_gpu(tmp_path, monkeypatch):
    library = tmp_path / "libcuda.so.1"
    source = ROOT / "launch/environment/stand_in_driver.c"
    subprocess.run(["g++", "-x", "c", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(gpu, "DRIVER", str(library))
    assert gpu.Driver().count() == 0
    with pytest.raises(ConfigError, match="tells nothing of GPU 0, got 0 GPUs"):
        gpu.Driver().gpu(0)


def test_the_command_counts(use_driver, monkeypatch, capsys):
    use_driver(80, 80, 80)
    assert gpu.main() == 0
    assert capsys.readouterr().out == "3\n"
    monkeypatch.setattr(gpu, "DRIVER", "no-such-driver.so")
    assert gpu.main() == 1
    assert capsys.readouterr().out == ""
