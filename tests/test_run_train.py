# SPDX-License-Identifier: Apache-2.0
"""What run_train.py composes: the device of a rank, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

DEVICES = """
import os, sys
import mxnet as mx
import launch.gpu
import run_train
from launch.comm import Comm
from launch.config import ConfigError

old, driverless = sys.argv[1:3]
launch.environment.gpu.version = {"mxnet-cu112": "1.9.1"}.__getitem__
arguments = ["--cfg", "demo.yaml", "data.records=[]", "data.loader=synthetic", "eval.sets=[]"]
builders = run_train.NETS, run_train.HEADS
config = run_train.load_config([*arguments, "data.num_classes=10"], *builders)

def opened(gpus, driver, rank, ranks):
    launch.environment.gpu.DRIVER = driver
    mx.context.num_gpus = lambda: gpus
    inputs = run_train.open_inputs(config, Comm(rank, ranks, rank, ranks))
    print(inputs.ctx, os.environ.get("MXNET_USE_FUSION"), *inputs.notices, sep=" | ")

for rank in range(8):
    try:
        opened(7, old, rank, 8)
    except ConfigError as error:
        print(error)
opened(0, driverless, 1, 2)
opened(2, old, 1, 2)
"""


def test_the_device_of_a_rank(make_driver, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", DEVICES, make_driver(80, 80, version=11040), "no-such-driver.so"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "MXNET_USE_FUSION"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *refused, without, with_gpu = done.stdout.splitlines()
    assert len(refused) == 8 and len(set(refused)) == 1
    assert "got 8 ranks on this host, MXNet sees 7 GPUs; start 7 (-np 7), or use" in refused[0]
    assert without.startswith("cpu(0) | None | device: computes on the CPU, mxnet-cu112 1.9.1 is ")
    assert with_gpu.startswith("gpu(1) | 0 | driver: CUDA 11.4 is older than the 11.8 for which ")
