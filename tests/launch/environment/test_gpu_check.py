# SPDX-License-Identifier: Apache-2.0
"""What the test of the GPU environment says of GPUs, with stand-ins for MXNet and the driver."""

from __future__ import annotations

import os

import mxnet as mx
import pytest

from launch.environment import gpu, gpu_check
from launch.ranks import comm


class Features:
    """Of an MXNet for CUDA."""

    def is_enabled(self, name: str) -> bool:
        return name in gpu_check.FEATURES


@pytest.fixture
def check(make_driver, monkeypatch, capsys):
    """Return ``check(*capabilities)``: exit code, lines, and on what a step was trained."""
    monkeypatch.setattr(mx.runtime, "Features", Features)
    monkeypatch.setattr(comm, "nccl_release", lambda: "")
    monkeypatch.setenv(gpu.FUSION_SWITCH, "")  # so that the end of the test sets it back
    monkeypatch.delenv(gpu.FUSION_SWITCH)

    def run(*capabilities: int, version: int = 12020):
        driver = str(make_driver(*capabilities, version=version))
        monkeypatch.setattr(gpu, "DRIVER", driver)
        monkeypatch.setattr(gpu_check, "DRIVER", driver)
        monkeypatch.setattr(mx.context, "num_gpus", lambda: len(capabilities))
        trained = []

        def train_one_step(_, context):
            trained.append((str(context), os.environ.get(gpu.FUSION_SWITCH)))
            return 2.0, 1.0

        monkeypatch.setattr(gpu_check, "train_one_step", train_one_step)
        code = gpu_check.main()
        out = capsys.readouterr()
        assert out.err == ""
        return code, out.out.splitlines(), trained

    return run


def test_gpus_without_code_are_named_with_their_numbers(check):
    code, lines, trained = check(90, 80, 90, 37)
    assert code == 0
    assert lines[:-1] == [
        "gpu_check: GPU 0 cannot be used, MXNet has no machine code for it, got Fake GPU 0 with "
        'compute capability 9.0; see "Which GPUs" in docs/gpu.md',
        "gpu_check: GPU 2 cannot be used, MXNet has no machine code for it, got Fake GPU 2 with "
        'compute capability 9.0; see "Which GPUs" in docs/gpu.md',
        "gpu_check: GPU 3 cannot be used, MXNet has no machine code for it, got Fake GPU 3 with "
        'compute capability 3.7; see "Which GPUs" in docs/gpu.md',
    ]
    assert lines[-1].startswith("mxnet 1.9.1: CUDA, CUDNN, NCCL on; num_gpus 4; trained a step on ")
    assert [context for context, _ in trained] == ["cpu(0)", "gpu(1)"]


def test_gpus_of_one_kind_are_one_sentence():
    hopper = gpu.Gpu("NVIDIA H100", (9, 0))
    (said,) = gpu_check.without_code([hopper, gpu.Gpu("NVIDIA A100", (8, 0)), hopper])
    assert said.startswith("GPU 0, 2 cannot be used, ") and "got NVIDIA H100 with compute" in said


def test_nothing_is_said_of_gpus_that_work(check):
    code, lines, trained = check(70, 89)
    assert code == 0 and len(lines) == 1
    assert trained == [("cpu(0)", None), ("gpu(0)", None), ("gpu(1)", None)]


def test_fusion_is_off_before_a_step_is_trained(check):
    code, lines, trained = check(80, version=11040)
    assert code == 0
    assert lines[0].startswith("gpu_check: driver: CUDA 11.4 is older than the 11.8 for which ")
    assert [fusion for _, fusion in trained] == ["0", "0"]


def test_nothing_is_said_of_drivers_without_gpus(check):
    _, lines, trained = check(version=11040)
    assert len(lines) == 1 and trained == [("cpu(0)", None)]


def test_a_missing_name_of_the_driver_is_told_where_nccl_asks_for_it(check, monkeypatch):
    monkeypatch.setattr(comm, "nccl_release", lambda: "2.21.5")
    monkeypatch.setattr(comm, "DRIVER_LINK", "libcuda-of-nobody.so")
    code, lines, _ = check(80)
    assert code == 0
    assert lines[0].startswith(
        "gpu_check: launch: Horovod with NCCL loads the NVIDIA driver as libcuda-of-nobody.so, got "
    )
    assert lines[-1].endswith("Horovod with NCCL 2.21.5")
