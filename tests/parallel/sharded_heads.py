# SPDX-License-Identifier: Apache-2.0
"""Train heads with and without distributed class centres on real ranks, and save the results.

sharded_heads.py OUT OPERATORS STEPS

Every rank trains each head of ``CASES`` twice from equal class centres: with all centres on every
rank, and with the centres distributed over the ranks. A linear layer stands for the net. Rank 0
writes losses and class centres of both to OUT (.npz), under ``<case>.<part>.<complete or shards>``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

import ops
from heads import build_head
from heads.shard_centres import Step
from heads.sharded import Sharding
from launch.ranks.comm import Comm, connect
from training.step import build_optimizer, train_step

INPUT_SIZE, EMBEDDING_SIZE, LR = 6, 8, 0.05
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-3


@dataclass(frozen=True)
class Case:
    """Head, its settings, and the circumstances of its training."""

    head: str
    settings: dict[str, Any] = field(default_factory=dict)
    num_classes: int = 11  # divisible neither by 2 nor by 3
    batch_size: int = 4
    classes: tuple[int, ...] = ()
    """Classes of the images; empty: all classes."""
    fused: bool = False
    clip_norm: float = 0.0
    optimizer: str = "sgd"
    sample_rate: float = 1.0
    """Rate of the shards. A rate below 1 that samples all classes must equal complete centres."""


SMALL = {"scale": 8.0}
CASES = {
    "softmax": Case("softmax"),
    "normface": Case("normface", SMALL),
    "l2_softmax": Case("l2_softmax"),
    "cosface": Case("cosface", SMALL),
    "arcface": Case("arcface", SMALL),
    "combined": Case("combined", SMALL),
    "sphereface": Case("sphereface", SMALL),
    "sv_softmax": Case("sv_softmax", SMALL),
    "curricularface": Case("curricularface", {**SMALL, "momentum": 0.3}),
    "adaface": Case("adaface", {**SMALL, "momentum": 0.3}),
    "magface": Case("magface", {**SMALL, "low": 0.1, "high": 4.0}),
    "elasticface": Case("elasticface", {**SMALL, "plus": True}),
    "circle": Case("circle", SMALL),
    "coco": Case("coco"),
    "sub_center_arcface": Case("sub_center_arcface", SMALL),
    "filter": Case("arcface", {**SMALL, "interclass_filter": 0.2}),
    "no positives on the last rank": Case("arcface", SMALL, classes=(0, 1, 2)),
    "one image per rank": Case("arcface", SMALL, batch_size=1),
    "a rank without classes": Case("arcface", SMALL, num_classes=2),
    "clipped": Case("arcface", SMALL, clip_norm=0.5),
    "nag": Case("arcface", SMALL, optimizer="nag"),
    "samples of all classes": Case("arcface", SMALL, sample_rate=0.99),
}
FUSED_CASES = {
    "fused": Case("arcface", SMALL, fused=True),
    "fused without positives": Case("arcface", SMALL, classes=(0, 1, 2), fused=True),
    "fused, a rank without classes": Case("arcface", SMALL, num_classes=2, fused=True),
    "fused samples of all classes": Case("arcface", SMALL, fused=True, sample_rate=0.99),
}


def batches(case: Case, comm: Comm, steps: int) -> Iterator[tuple[mx.nd.NDArray, mx.nd.NDArray]]:
    """Yield inputs and labels of this rank for each step."""
    random = np.random.default_rng(7)
    own = slice(comm.rank * case.batch_size, (comm.rank + 1) * case.batch_size)
    count = comm.size * case.batch_size
    for _ in range(steps):
        inputs = random.normal(size=(count, INPUT_SIZE))
        labels = random.choice(case.classes or case.num_classes, size=count)
        yield mx.nd.array(inputs[own]), mx.nd.array(labels[own])


def initial_centres(case: Case, rows: int) -> np.ndarray:
    """Return equal class centres for every rank."""
    return np.random.default_rng(3).normal(size=(rows, EMBEDDING_SIZE)).astype(np.float32)


def train(case: Case, comm: Comm, steps: int, sharded: bool) -> dict[str, np.ndarray]:
    """Train a head and a linear layer; return mean losses, weights and all class centres."""
    sgd = Step(MOMENTUM, WEIGHT_DECAY)
    head = build_head(
        case.head,
        case.num_classes,
        EMBEDDING_SIZE,
        comm.reduce,
        fused_update=sgd._asdict() if case.fused and sharded else None,
        sharding=Sharding(comm, 1, sgd),
        **case.settings,
        **({"sharded": True, "sample_rate": case.sample_rate} if sharded else {}),
    )
    net = nn.Dense(EMBEDDING_SIZE, in_units=INPUT_SIZE)
    head.initialize()
    net.initialize()
    shard = head.shard
    each = len(head.weight.data()) // (max(1, shard.num_rows) if shard else case.num_classes)
    centres = initial_centres(case, case.num_classes * each)
    own = slice(shard.start * each, shard.stop * each) if shard else slice(None)
    if len(centres[own]):
        head.weight.set_data(mx.nd.array(centres[own]))
    weights = np.random.default_rng(5).normal(size=(EMBEDDING_SIZE, INPUT_SIZE))
    net.weight.set_data(mx.nd.array(weights))
    parameters = {f"net.{n}": p for n, p in net._collect_params_with_prefix().items()}
    of_head = {f"head.{n}": p for n, p in head._collect_params_with_prefix().items()}
    shared = parameters if sharded else {**parameters, **of_head}

    def optimizer(of: dict[str, Any]) -> mx.optimizer.Optimizer:
        return build_optimizer(of, case.optimizer, LR, MOMENTUM, WEIGHT_DECAY)

    trainer, shard_trainer = comm.trainer(shared, optimizer(shared)), None
    if sharded and head.weight.grad_req != "null":
        weight = {"head.weight": head.weight}
        shard_trainer = mx.gluon.Trainer(weight, optimizer(weight), kvstore=None)
    mx.random.seed(11 + comm.rank)
    margin, losses = mx.nd.array([0.8]), []
    for inputs, label in batches(case, comm, steps):
        loss, cosine = train_step(
            net,
            head,
            trainer,
            inputs,
            label,
            margin,
            clip_norm=case.clip_norm,
            size=comm.size,
            shard_trainer=shard_trainer,
            sum_over_ranks=lambda array: comm.sum_rows(array, "clip"),
        )
        losses.append([loss.asscalar(), cosine.asscalar()])
    inputs, _ = next(batches(case, comm, 1))
    predicted = head.predict(net(inputs))
    if predicted is None:  # a head with samples
        predicted = mx.nd.full(case.batch_size, -1)
    found = head.weight.data().asnumpy()
    if shard:
        found = comm.gather(found[: shard.num_rows * each])
    mean = comm.sum(np.array(losses)) / comm.size
    return {"losses": mean[:, 0], "cosines": mean[:, 1], "centres": found} | {
        "net": net.weight.data().asnumpy(),
        "predicted": comm.gather(predicted.asnumpy()),
        "moved": np.abs(found - centres).max(),
    }


def main(out: Path, operators: str, steps: int) -> None:
    os.environ["HOROVOD_CYCLE_TIME"] = "1"  # ms; a step has up to six exchanges in sequence
    comm = connect()
    ops.use(operators)
    results: dict[str, np.ndarray] = {}
    for name, case in (CASES | (FUSED_CASES if operators == "native" else {})).items():
        for kind in ("complete", "shards"):
            found = train(case, comm, steps, kind == "shards")
            results |= {f"{name}.{part}.{kind}": array for part, array in found.items()}
    if comm.rank == 0:
        np.savez(out, **results)
    comm.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
