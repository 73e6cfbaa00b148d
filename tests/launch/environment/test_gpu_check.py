# SPDX-License-Identifier: Apache-2.0
"""Output of the check of the GPU environment, with stubs for MXNet's features and the driver."""

from __future__ import annotations

import os

import mxnet as mx
import pytest

from launch.environment import gpu, gpu_check
from launch.ranks import comm


class Features:
    """Features of an MXNet build for CUDA."""

    def is_enabled(self, name: str) -> bool:
        return name in gpu_check.FEATURES


@pytest.fixture
def check(make_driver, monkeypatch, capsys):
    """Return ``check(*capabilities)`` -> (exit code, lines, devices that trained a step)."""
    monkeypatch.setattr(mx.runtime, "Features", Features)
    monkeypatch.setattr(comm, "nccl_release", lambda: "")
    monkeypatch.setenv(gpu.FUSION_VARIABLE, "")  # makes monkeypatch restore it
    monkeypatch.delenv(gpu.FUSION_VARIABLE)

    def run(*capabilities: int, version: int = 12020):
        driver = str(make_driver(*capabilities, version=version))
        monkeypatch.setattr(gpu, "DRIVER", driver)
        monkeypatch.setattr(gpu_check, "DRIVER", driver)
        monkeypatch.setattr(mx.context, "num_gpus", lambda: len(capabilities))
        trained = []

        def train_one_step(_, context):
            trained.append((str(context), os.environ.get(gpu.FUSION_VARIABLE)))
            return 2.0, 1.0

        monkeypatch.setattr(gpu_check, "train_one_step", train_one_step)
        code = gpu_check.main()
        out = capsys.readouterr()
        assert out.err == ""
        return code, out.out.splitlines(), trained

    return run


def test_unsupported_gpus_are_reported_with_their_indices(check):
    code, lines, trained = check(90, 80, 90, 37)
    assert code == 0
    assert lines[:-1] == [
        f"gpu_check: GPU {i}: MXNet has no machine code for this model, got Fake GPU {i} with "
        f'compute capability {capability}; see "Which GPUs" in docs/gpu.md'
        for i, capability in ((0, "9.0"), (2, "9.0"), (3, "3.7"))
    ]
    assert lines[-1].startswith("mxnet 1.9.1: CUDA, CUDNN, NCCL on; num_gpus 4; trained a step on ")
    assert [context for context, _ in trained] == ["cpu(0)", "gpu(1)"]


def test_unsupported_gpus_of_one_model_share_a_notice():
    hopper = gpu.Gpu("NVIDIA H100", (9, 0))
    (message,) = gpu_check.unsupported_notices([hopper, gpu.Gpu("NVIDIA A100", (8, 0)), hopper])
    assert message.startswith("GPU 0, 2: ") and "got NVIDIA H100 with compute" in message


def test_supported_gpus_cause_no_notice(check):
    code, lines, trained = check(70, 89)
    assert code == 0 and len(lines) == 1
    assert trained == [("cpu(0)", None), ("gpu(0)", None), ("gpu(1)", None)]


def test_fusion_is_disabled_before_a_step_is_trained(check):
    code, lines, trained = check(80, version=11040)
    assert code == 0
    assert lines[0].startswith("gpu_check: driver: MXNet's operator fusion requires CUDA 11.8, ")
    assert [fusion for _, fusion in trained] == ["0", "0"]


def test_a_driver_without_gpus_causes_no_notice(check):
    _, lines, trained = check(version=11040)
    assert len(lines) == 1 and trained == [("cpu(0)", None)]


def test_a_missing_driver_link_is_reported_if_horovod_uses_nccl(check, monkeypatch):
    monkeypatch.setattr(comm, "nccl_release", lambda: "2.21.5")
    monkeypatch.setattr(comm, "DRIVER_LINK", "libcuda-of-nobody.so")
    code, lines, _ = check(80)
    assert code == 0
    assert lines[0].startswith(
        "gpu_check: launch: Horovod with NCCL loads the NVIDIA driver as libcuda-of-nobody.so, got "
    )
    assert lines[-1].endswith("Horovod with NCCL 2.21.5")
