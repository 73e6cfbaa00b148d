# SPDX-License-Identifier: Apache-2.0
"""Train a tiny net without BatchNorm and save its weights.

equivalence.py RECORDS BATCH_SIZE STEPS CLIP_NORM OUT MODE [CLIP_NORM OUT MODE ...]

Each CLIP_NORM, OUT and MODE are one training.  MODE selects how the ranks average gradients:

- "straight": directly by Horovod.
- "host": through host memory; cpu(1) stands for a GPU.
- "averaged": directly, by a Horovod that reports an NCCL that can average.
- "native", "center", "adacos": directly, with fused operators and a head that has statistics.
- "gpu": between GPUs, as Horovod was built.
- "gpu host": from GPUs through host memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon
from mxnet.gluon import nn

import ops
import pipeline.decode.dali  # noqa: F401  before Horovod is loaded
from heads import build_head
from launch.ranks import comm as communication
from launch.ranks import host_allreduce
from launch.ranks.comm import Comm, connect
from nets.blocks import PReLU
from pipeline import build_loader
from pipeline.loader import Share
from pipeline.records.open import open_records
from training.step import build_optimizer, collect_parameters, train_step

EMBEDDING_SIZE = 16
HEAD_OF = {
    "native": ("adaface", {"momentum": 0.3, "scale": 16.0}),
    "center": ("center", {"center_weight": 1.0}),
    "adacos": ("adacos", {}),
}
LR = 0.001  # small, because the class centres have a length of only 0.04


def build_tiny_net() -> gluon.HybridBlock:
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(8, 5, strides=4, in_channels=3),
        PReLU(8),
        nn.Conv2D(16, 3, strides=3, in_channels=8),
        PReLU(16),
        nn.GlobalAvgPool2D(),
        nn.Flatten(),
        nn.Dense(EMBEDDING_SIZE, in_units=16),
    )
    return net


@contextmanager
def mode_set(mode: str, local_rank: int) -> Iterator[mx.Context]:
    """Set how the ranks average gradients within the with block; yield the device of the net."""
    with pytest.MonkeyPatch.context() as patch:
        ops.use("native" if mode in HEAD_OF else "plain")
        if mode == "gpu host":
            patch.setattr(communication, "through_host", lambda ctx: ctx.device_type == "gpu")
        if mode == "host":
            patch.setattr(communication, "through_host", lambda ctx: ctx == mx.cpu(1))
            # Horovod also accepts pinned memory.
            patch.setattr(host_allreduce, "is_gpu", communication.through_host)
        if mode == "averaged":
            import horovod.mxnet as hvd

            patch.setattr(hvd, "nccl_built", lambda: 22105)
        yield mx.gpu(local_rank) if mode.startswith("gpu") else mx.cpu(int(mode == "host"))


def main(records: Path, batch_size: int, steps: int, trainings: Sequence[str]) -> None:
    comm = connect()
    for clip_norm, out, mode in zip(*[iter(trainings)] * 3, strict=True):
        with mode_set(mode, comm.local_rank) as ctx:
            train(comm, ctx, records, batch_size, steps, float(clip_norm), Path(out), mode)
    comm.close()


def train(
    comm: Comm,
    ctx: mx.Context,
    records: Path,
    batch_size: int,
    steps: int,
    clip_norm: float,
    out: Path,
    mode: str,
) -> None:
    record_set = open_records(records, out.parent)
    share = Share(comm.rank, comm.size)
    loader = build_loader("dali", record_set, batch_size, share=share)
    mx.random.seed(5 + comm.rank)  # different weights, until the broadcast from rank 0
    net = build_tiny_net()
    name, settings = HEAD_OF.get(mode, ("arcface", {"scale": 16.0}))
    size = record_set.num_classes, EMBEDDING_SIZE
    head = build_head(name, *size, comm.reduce, **settings)
    for block in (net, head):
        block.initialize(mx.init.Xavier(), ctx=ctx)
        block.hybridize(static_alloc=True, static_shape=True)
    parameters = collect_parameters(net, head)
    trainer = comm.trainer(parameters, build_optimizer(parameters, "sgd", LR, 0.9, 5e-4))
    if not mode.startswith("gpu"):  # on GPUs it depends on Horovod's build
        assert isinstance(trainer, host_allreduce.HostTrainer) == (mode == "host")
    comm.broadcast(parameters)
    before = {name: p.list_data()[0].asnumpy() for name, p in parameters.items()}
    margin, losses = mx.nd.ones((1,), ctx=ctx), []
    for _ in range(steps):
        batch = next(loader)
        image, label = (array.as_in_context(ctx) for array in (batch.image, batch.label))
        loss, _ = train_step(
            net, head, trainer, image, label, margin, clip_norm=clip_norm, size=comm.size
        )
        losses.append(float(loss.asscalar()))
    loader.close()
    after = {name: p.list_data()[0].asnumpy() for name, p in parameters.items()}
    learnt = [name for name, p in parameters.items() if p.grad_req != "null"]
    moved = max(np.abs(after[name] - before[name]).max() for name in learnt)
    if comm.rank == 0:
        np.savez(out, **after)
        print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, moved {moved:.4f}")
    comm.gather_json("done")


if __name__ == "__main__":
    records, batch_size, steps, *trainings = sys.argv[1:]
    main(Path(records), int(batch_size), int(steps), trainings)
