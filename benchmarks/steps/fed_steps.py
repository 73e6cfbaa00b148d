# SPDX-License-Identifier: Apache-2.0
"""Run training steps on the batches of a loader, for benchmarks/step_throughput.py.

The steps work as in run_train.py and training/loop.py on one rank: the loader is built first, and
the host runs at most two steps ahead of the device.  The waiting time is the time in which the
device has no step left to compute.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness.process import CORES
from benchmarks.harness.worker import Work, serve
from benchmarks.steps.loader_steps import PREFETCHED_BATCHES, versions, warm
from benchmarks.steps.loaders_baselines import cv2_data_loader
from benchmarks.steps.mxnet_steps import our_blocks, sizes

SEED = 1
WARM_UP_STEPS = 3  # number of steps until the host is two steps ahead and waits for the device


def build(
    *,
    loader: str,
    workers: int,
    records: str,
    image_rec: str,
    scratch: str,
    net: str,
    options: dict[str, Any],
    batch: int,
) -> Work:
    """Build the work of a training step that takes its batch from a loader.

    Parameters
    ----------
    loader, workers
        Name of the loader for `pipeline.build_loader`, or "gluon" for the Gluon DataLoader of
        `loaders_baselines`; number of worker processes.
    records, image_rec, scratch
        Folder of the record set, a .rec of it whose .idx lists images only, and a temporary folder.
    net, options
        Name of the network in nets.NETS, and its keyword arguments.
    batch
        Images per step.
    """
    import mxnet as mx

    from pipeline import build_loader
    from pipeline.records import open_records
    from training.clock import DeviceClock
    from training.step import train_step

    opened = open_records(records, scratch)
    # The loader comes first: its worker processes must fork before MXNet starts threads.
    if loader == "gluon":
        batches = cv2_data_loader(Path(image_rec), batch, workers)
    else:
        batches = build_loader(loader, opened, batch, seed=SEED, threads=CORES, workers=workers)
    mx.random.seed(SEED)  # all candidates start with the same weights
    network, head, trainer = our_blocks(net, options, opened.num_classes, opened.image_size)
    fraction, clock = mx.nd.ones((1,)), DeviceClock()
    weight = next(p for p in network.collect_params().values() if p.grad_req != "null")
    issued = deque[Any](maxlen=3)
    waited = 0.0

    def step(mark: Callable[[], None]) -> float:
        nonlocal waited
        asked = time.perf_counter()
        image, label = next(batches)[:2]
        if loader == "gluon":  # copy it out of the worker's shared memory
            image, label = image.as_in_context(mx.cpu()), label.as_in_context(mx.cpu())
        waited += clock.idle_seconds(asked, time.perf_counter())
        loss, _ = train_step(network, head, trainer, image, label, fraction)
        clock.step(weight.data())
        issued.append(loss)
        # Sync: wait for an earlier step, so that the host runs at most two steps ahead.
        return float(issued[0].asscalar()) if len(issued) == 3 else 0.0

    def begin() -> None:
        nonlocal waited
        for _ in range(
            PREFETCHED_BATCHES
        ):  # skip batches prefetched while other loaders were timed
            next(batches)
        for _ in range(WARM_UP_STEPS):
            step(lambda: None)
        waited = 0.0

    def end() -> dict[str, float]:
        mx.nd.waitall()  # Sync: nothing may compute while other loaders are timed
        issued.clear()
        return {"waited": waited}

    return Work(step, *sizes(trainer._params), versions(), begin=begin, end=end)


if __name__ == "__main__":
    serve(build, warm)
