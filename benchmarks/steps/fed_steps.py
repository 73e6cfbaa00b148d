# SPDX-License-Identifier: Apache-2.0
"""Run training steps on the batches of a loader, for benchmarks/step_throughput.py.

The steps work as in training/loop.py on one rank: the host runs at most two steps ahead of the
device.  The waiting time is the time in which the device has nothing to compute because the next
batch is not ready.
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
WARM_UP_STEPS = 3  # After three steps, the host is two steps ahead and waits for the device.


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
    """Return the `Work` of a training step that takes its batch from a loader.

    Parameters
    ----------
    loader
        Name of the loader for `pipeline.build_loader`, or "gluon" for the Gluon DataLoader of
        `loaders_baselines`.
    workers
        Number of worker processes of the loader.
    records
        Folder of the record set.
    image_rec
        Path of a .rec with the images of the set; its .idx lists only image records.
    scratch
        Temporary folder.
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
    mx.random.seed(SEED)  # The initial weights are equal with all loaders.
    network, head, trainer = our_blocks(net, options, opened.num_classes, opened.image_size)
    fraction, clock = mx.nd.ones((1,)), DeviceClock()
    weight = next(p for p in network.collect_params().values() if p.grad_req != "null")
    issued = deque[Any](maxlen=3)
    waited = 0.0

    def step(mark: Callable[[], None]) -> float:
        nonlocal waited
        asked = time.perf_counter()
        image, label = next(batches)[:2]
        if loader == "gluon":
            # The copy moves the batch out of the shared memory of the worker process.
            image, label = image.as_in_context(mx.cpu()), label.as_in_context(mx.cpu())
        waited += clock.idle_seconds(asked, time.perf_counter())
        loss, _ = train_step(network, head, trainer, image, label, fraction)
        clock.step(weight.data())
        issued.append(loss)
        # Sync: wait for an older step, so that the host is at most two steps ahead of the device.
        return float(issued[0].asscalar()) if len(issued) == 3 else 0.0

    def begin() -> None:
        nonlocal waited
        # Skip the batches that this loader prefetched while the other loaders were timed.
        for _ in range(PREFETCHED_BATCHES):
            next(batches)
        for _ in range(WARM_UP_STEPS):
            step(lambda: None)
        waited = 0.0

    def end() -> dict[str, float]:
        mx.nd.waitall()  # Sync: this process must be idle while other loaders are timed.
        issued.clear()
        return {"waited": waited}

    return Work(step, *sizes(trainer._params), versions(), begin=begin, end=end)


if __name__ == "__main__":
    serve(build, warm)
