# SPDX-License-Identifier: Apache-2.0
"""Check the GPU environment:  .venv-gpu/bin/python -m launch.environment.gpu_check

The program imports MXNet and Horovod and trains a small net for one step on the CPU and on every
GPU that the MXNet wheel supports.  It prints the number of GPUs and lists the unsupported GPUs.
Without an NVIDIA driver it restarts itself with the stub driver that setup.sh compiled.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.environment.gpu import (
    DRIVER,
    Driver,
    Gpu,
    disable_unsupported_fusion,
    supports_capability,
)

STUB_FOLDER = Path(sys.prefix) / "stand-in"
FEATURES = ("CUDA", "CUDNN", "NCCL")


def main() -> int:
    """Run the check and print its result; return 0 on success, or 1 after an error message."""
    uses_stub = str(STUB_FOLDER) in os.environ.get("LD_LIBRARY_PATH", "").split(":")
    try:
        ctypes.CDLL(DRIVER)
    except OSError as error:
        if uses_stub or not (STUB_FOLDER / DRIVER).is_file():
            print(
                "gpu_check: neither the NVIDIA driver nor the stub driver can be loaded, got "
                f"{error}; run `make gpu`, which builds the stub driver",
                file=sys.stderr,
            )
            return 1
        paths = [str(STUB_FOLDER), os.environ.get("LD_LIBRARY_PATH", "")]
        environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, paths))}
        # Disable MXNet's warning about the CUDA version of the stub driver.
        environment["MXNET_CUDA_LIB_CHECKING"] = "0"
        # The dynamic linker reads LD_LIBRARY_PATH only when a process starts.
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
    usable = [i for i, gpu in enumerate(found) if supports_capability(gpu.capability)]
    # disable_unsupported_fusion must run before MXNet traces a graph.
    notices = [disable_unsupported_fusion(driver) if usable else "", *unsupported_notices(found)]
    contexts = [mx.cpu(), *(mx.gpu(i) for i in usable)]
    for context in contexts:
        before, after = train_one_step(mx, context)
        if not after < before:
            print(
                f"gpu_check: a training step on {context} must lower the loss, got {before:g} "
                f"before and {after:g} after the step; see docs/gpu.md",
                file=sys.stderr,
            )
            return 1
    release = nccl_release()
    if release and not uses_stub:  # the stub driver comes without libcuda.so
        try:
            require_driver_link()
        except NoLink as error:  # only a notice, because a run with one rank needs no libcuda.so
            notices.append(str(error))
    for notice in filter(None, notices):
        print(f"gpu_check: {notice}")
    print(
        f"mxnet {mx.__version__}: {', '.join(FEATURES)} on; num_gpus {gpus}"
        f"{' (stub driver)' if uses_stub else ''}; trained a step on "
        f"{', '.join(map(str, contexts))}; Horovod "
        f"{f'with NCCL {release}' if release else 'without NCCL'}"
    )
    return 0


def unsupported_notices(gpus: Sequence[Gpu]) -> list[str]:
    """Return one notice for each GPU model that MXNet does not support.

    The notice contains the indices of all GPUs of that model.
    """
    numbers: dict[str, list[str]] = {}
    for i, gpu in enumerate(gpus):
        if not supports_capability(gpu.capability):
            numbers.setdefault(str(gpu), []).append(str(i))
    return [
        f"GPU {', '.join(found)}: MXNet has no machine code for this model, got {gpu}; see "
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
