# SPDX-License-Identifier: Apache-2.0
"""Test the GPU environment in one line:  .venv-gpu/bin/python -m launch.environment.gpu_check

Imports MXNet for CUDA and Horovod, trains a small net for one step on the CPU and on every GPU
that MXNet's wheel has code for, and says how many there are and which of them cannot be used.  On
a machine without an NVIDIA driver it starts itself again with the stand-in that setup.sh has
compiled.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.environment.gpu import DRIVER, Driver, Gpu, fit_fusion, has_code

STAND_IN = Path(sys.prefix) / "stand-in"
FEATURES = ("CUDA", "CUDNN", "NCCL")


def main() -> int:
    """Print what works; return 1 with a sentence if something does not."""
    stand_in = str(STAND_IN) in os.environ.get("LD_LIBRARY_PATH", "").split(":")
    try:
        ctypes.CDLL(DRIVER)
    except OSError as error:
        if stand_in or not (STAND_IN / DRIVER).is_file():
            print(
                f"gpu_check: no driver and no stand-in for it, got {error}; call `make gpu`",
                file=sys.stderr,
            )
            return 1
        paths = [str(STAND_IN), os.environ.get("LD_LIBRARY_PATH", "")]
        environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, paths))}
        environment["MXNET_CUDA_LIB_CHECKING"] = "0"  # it warns of the driver that is missing
        # The dynamic linker reads it when a process starts.
        arguments = [sys.executable, "-m", "launch.environment.gpu_check"]
        os.execve(sys.executable, arguments, environment)
    import mxnet as mx

    from launch.ranks.comm import NoLink, nccl_release, require_driver_link

    features = mx.runtime.Features()
    off = [name for name in FEATURES if not features.is_enabled(name)]
    if off:
        print(f"gpu_check: MXNet lacks {', '.join(off)}; call `make gpu`", file=sys.stderr)
        return 1
    gpus = mx.context.num_gpus()
    driver = Driver()
    found = [driver.gpu(i) for i in range(gpus)]
    known = [i for i, gpu in enumerate(found) if has_code(gpu.capability)]
    # Before a graph is traced.
    notices = [fit_fusion(driver) if known else "", *without_code(found)]
    contexts = [mx.cpu(), *(mx.gpu(i) for i in known)]
    for context in contexts:
        before, after = train_one_step(mx, context)
        if not after < before:
            print(
                f"gpu_check: a step of training on {context} must lower the loss, got {before:g} "
                f"and then {after:g}; see docs/gpu.md",
                file=sys.stderr,
            )
            return 1
    release = nccl_release()
    if release and not stand_in:  # which has one name
        try:
            require_driver_link()
        except NoLink as error:  # one rank does without
            notices.append(str(error))
    for notice in filter(None, notices):
        print(f"gpu_check: {notice}")
    print(
        f"mxnet {mx.__version__}: {', '.join(FEATURES)} on; num_gpus {gpus}"
        f"{' (stand-in driver)' if stand_in else ''}; trained a step on "
        f"{', '.join(map(str, contexts))}; Horovod "
        f"{f'with NCCL {release}' if release else 'without NCCL'}"
    )
    return 0


def without_code(gpus: Sequence[Gpu]) -> list[str]:
    """Return a sentence for each kind of GPU that cannot be used, with the numbers of those."""
    numbers: dict[str, list[str]] = {}
    for i, gpu in enumerate(gpus):
        if not has_code(gpu.capability):
            numbers.setdefault(str(gpu), []).append(str(i))
    return [
        f"GPU {', '.join(found)} cannot be used, MXNet has no machine code for it, got {gpu}; see "
        '"Which GPUs" in docs/gpu.md'
        for gpu, found in numbers.items()
    ]


def train_one_step(mx: Any, context: Any) -> tuple[float, float]:
    """Return the loss of a small hybridized net before and after one step of SGD."""
    mx.random.seed(3)
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Conv2D(8, 3), mx.gluon.nn.BatchNorm(), mx.gluon.nn.PReLU())
    net.add(mx.gluon.nn.Flatten(), mx.gluon.nn.Dense(5))
    net.initialize(ctx=context)
    net.hybridize()
    image = mx.nd.random.normal(shape=(4, 3, 8, 8), ctx=context)
    label = mx.nd.array([0, 1, 2, 3], ctx=context)
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1}, kvstore=None)
    losses = []
    for _ in range(2):
        with mx.autograd.record():
            loss = loss_of(net(image), label).mean()
        loss.backward()
        trainer.step(1)
        losses.append(float(loss.asscalar()))
    return losses[0], losses[1]


if __name__ == "__main__":
    sys.exit(main())
