# SPDX-License-Identifier: Apache-2.0
"""Run run_train.py with MXNet's wheel for CUDA and with fake GPUs that it does not support.

fake_gpus.py DRIVER GPUS ARGUMENTS-OF-RUN_TRAIN...
fake_gpus.py DRIVER GPUS --several FILE-OF-ARGUMENT-LISTS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mxnet as mx

import launch.environment.gpu
import run_train
from tests.parallel import several

if __name__ == "__main__":
    driver, gpus, *arguments = sys.argv[1:]
    mx.context.num_gpus = lambda: int(gpus)
    launch.environment.gpu.DRIVER = driver
    launch.environment.gpu.version = {"mxnet-cu112": "1.9.1"}.__getitem__
    if arguments[0] == "--several":
        sys.exit(several.main(json.loads(Path(arguments[1]).read_text())))
    sys.exit(run_train.main(arguments))
