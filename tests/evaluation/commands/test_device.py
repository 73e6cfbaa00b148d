# SPDX-License-Identifier: Apache-2.0
"""Choice of the device of the commands."""

from __future__ import annotations

import mxnet as mx

from evaluation.commands.device import choose_device


def test_a_gpu_build_without_a_gpu_is_reported(monkeypatch, capsys):
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 0)
    monkeypatch.setattr("launch.environment.gpu.version", {"mxnet-cu112": "1.9.1"}.__getitem__)
    monkeypatch.setattr("launch.environment.gpu.DRIVER", "no-such-driver.so")
    assert choose_device("cpu") == mx.cpu()
    assert capsys.readouterr().err == ""
    assert choose_device("auto") == mx.cpu()
    said = capsys.readouterr().err
    assert said.startswith("evaluation: device: this process uses the CPU, because mxnet-cu112 1.")


def test_a_driver_too_old_for_fusion_is_reported(make_driver, monkeypatch, capsys):
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 1)
    monkeypatch.setattr("launch.environment.gpu.version", {"mxnet-cu112": "1.9.1"}.__getitem__)
    monkeypatch.setattr("launch.environment.gpu.DRIVER", str(make_driver(80, version=11040)))
    monkeypatch.setenv("MXNET_USE_FUSION", "0")
    assert choose_device("gpu") == mx.gpu(0)
    assert capsys.readouterr().err.startswith(
        "evaluation: driver: MXNet's operator fusion requires CUDA 11.8, "
    )
