# SPDX-License-Identifier: Apache-2.0
"""Training steps on the batches of a loader: the other end of benchmarks/step_throughput.py.

As run_train.py and training/loop.py do them on one rank: the loader first, the host at most two
steps ahead, and what counts as waiting is the time in which there was nothing to compute.
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
IN_STEP = 3  # steps until a step takes as long as the device does: two are issued ahead


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
    """Build a training step that takes its batch from a loader.

    Parameters
    ----------
    loader, workers
        Name and worker processes for `pipeline.build_loader`; or "gluon": the Gluon DataLoader that
        `loaders_baselines` has.
    records, image_rec, scratch
        Folder of the record set, a .rec of it whose .idx lists images alone, and a folder to
        write to.
    net, options
        Name in nets.NETS and keywords.
    batch
        Images of a step.
    """
    import mxnet as mx

    from pipeline import build_loader
    from pipeline.records import open_records
    from training.clock import DeviceClock
    from training.step import train_step

    opened = open_records(records, scratch)
    # The loader first: its worker processes fork before MXNet has threads.
    if loader == "gluon":
        batches = cv2_data_loader(Path(image_rec), batch, workers)
    else:
        batches = build_loader(loader, opened, batch, seed=SEED, threads=CORES, workers=workers)
    mx.random.seed(SEED)  # the same initial weights for all
    network, head, trainer = our_blocks(net, options, opened.num_classes, opened.image_size)
    fraction, clock = mx.nd.ones((1,)), DeviceClock()
    weight = next(p for p in network.collect_params().values() if p.grad_req != "null")
    issued = deque[Any](maxlen=3)
    waited = 0.0

    def step(mark: Callable[[], None]) -> float:
        nonlocal waited
        asked = time.perf_counter()
        image, label = next(batches)[:2]
        if loader == "gluon":  # a worker's batch lies in memory that is shared with it
            image, label = image.as_in_context(mx.cpu()), label.as_in_context(mx.cpu())
        waited += clock.idle_seconds(asked, time.perf_counter())
        loss, _ = train_step(network, head, trainer, image, label, fraction)
        clock.step(weight.data())
        issued.append(loss)
        # Sync: the host is at most two steps ahead.
        return float(issued[0].asscalar()) if len(issued) == 3 else 0.0

    def begin() -> None:
        nonlocal waited
        for _ in range(PREFETCHED_BATCHES):  # while others had their turns
            next(batches)
        for _ in range(IN_STEP):
            step(lambda: None)
        waited = 0.0

    def end() -> dict[str, float]:
        mx.nd.waitall()  # Sync: while others have their turns nothing computes here
        issued.clear()
        return {"waited": waited}

    return Work(step, *sizes(trainer._params), versions(), begin=begin, end=end)


if __name__ == "__main__":
    serve(build, warm)
