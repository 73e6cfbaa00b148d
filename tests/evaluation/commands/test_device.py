# SPDX-License-Identifier: Apache-2.0
"""Choice of the device of the commands."""

from __future__ import annotations

import mxnet as mx
import pytest

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


def test_an_error_names_the_option_of_the_command(monkeypatch):
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 1)
    with pytest.raises(ValueError) as caught:
        choose_device("gpu", local_rank=0, local_size=2)
    text = str(caught.value)
    assert text.startswith("--device: 'gpu' requires a GPU for each of the 2 ranks")
    assert text.endswith("use --device cpu or fewer ranks")


def test_a_gpu_that_is_asked_for_must_exist(monkeypatch):
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 0)
    with pytest.raises(ValueError) as caught:
        choose_device("gpu")
    assert str(caught.value) == ("--device: MXNet finds no usable GPU, got gpu; use --device cpu")
