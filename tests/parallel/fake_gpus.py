# SPDX-License-Identifier: Apache-2.0
"""Run run_train.py with MXNet's wheel for CUDA and with fake GPUs that it does not support.

fake_gpus.py DRIVER GPUS ARGUMENTS-OF-RUN_TRAIN...
"""

from __future__ import annotations

import sys

import mxnet as mx

import launch.environment.gpu
import run_train

if __name__ == "__main__":
    driver, gpus, *arguments = sys.argv[1:]
    mx.context.num_gpus = lambda: int(gpus)
    launch.environment.gpu.DRIVER = driver
    launch.environment.gpu.version = {"mxnet-cu112": "1.9.1"}.__getitem__
    sys.exit(run_train.main(arguments))
