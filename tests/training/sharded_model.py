# SPDX-License-Identifier: Apache-2.0
"""Distributed model whose every value is known, and ranks that are threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon

from heads.shard import Shard
from launch.ranks.comm import Comm
from training.checkpoint import open_checkpoint, save_checkpoint
from training.step import Model, collect_parameters

EMBEDDING_SIZE = 3
RUN = "0123abcd"


def class_values(num_classes: int, per_class: int = 1, seed: int = 1) -> np.ndarray:
    """Return the class centres of all classes, (num_classes * per_class, EMBEDDING_SIZE)."""
    shape = (num_classes * per_class, EMBEDDING_SIZE)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class SmallHead(gluon.HybridBlock):
    """Head with the rows of a shard, or of all classes, and one statistic that all ranks share."""

    def __init__(
        self, num_classes: int, shard: Shard | None, *, per_class: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.shard = shard
        classes = shard.num_rows if shard else num_classes
        rows = max(1, classes) * per_class  # MXNet has no arrays without rows
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(rows, EMBEDDING_SIZE))
            self.t = self.params.get("t", shape=(1,), grad_req="null")
            if bias:
                self.bias = self.params.get("bias", shape=(rows,))
        self.momentum: dict[str, mx.nd.NDArray] = {}
        self.sampler: dict[str, Any] = {"draws": 0}

    def sampler_state(self) -> dict[str, Any]:
        return self.sampler

    def load_sampler_state(self, state: dict[str, Any]) -> None:
        self.sampler = state


def make_model(
    num_classes: int,
    rank: int = 0,
    size: int = 1,
    *,
    distributed: bool = True,
    own_momentum: bool = True,
    **options: Any,
) -> Model:
    """Return a model without values; ``own_momentum`` says whether the head keeps its momentum."""
    net = gluon.nn.Dense(EMBEDDING_SIZE, in_units=2)
    shard = Shard.of(num_classes, rank, size) if distributed else None
    head = SmallHead(num_classes, shard, **options)
    for block in (net, head):
        block.initialize(mx.init.Zero())
    parameters = collect_parameters(net, head)
    centres = {f"head.{name}" for name in ("weight", "bias")}
    trained = {name: p for name, p in parameters.items() if name not in centres}
    trainer = gluon.Trainer(trained, "sgd", {"momentum": 0.9}, kvstore=None)
    rest = {name: p for name, p in parameters.items() if name in centres}
    shard_trainer = gluon.Trainer(rest, "sgd", {"momentum": 0.9}, kvstore=None)
    if own_momentum:
        shape = head.weight.shape
        head.momentum = {"weight": mx.nd.zeros(shape)}
    return Model(net, head, trainer, parameters, None if own_momentum else shard_trainer)


def fill(model: Model, num_classes: int) -> None:
    """Set the values of a model: the class centres are those of `class_values`."""
    head = model.head
    shard = head.shard or Shard.of(num_classes, 0, 1)
    per_class = head.weight.shape[0] // max(1, shard.num_rows)
    rows = slice(shard.start * per_class, shard.stop * per_class)
    values, momentum = (class_values(num_classes, per_class, seed) for seed in (1, 2))
    if shard.num_rows:
        head.weight.set_data(mx.nd.array(values[rows]))
        if hasattr(head, "bias"):
            head.bias.set_data(mx.nd.array(values[rows][:, 0]))
        if head.momentum:
            head.momentum["weight"][:] = mx.nd.array(momentum[rows])
        elif model.shard_trainer is not None:
            index = next(i for i, p in enumerate(model.shard_trainer._params) if p is head.weight)
            model.shard_trainer._updaters[0].states[index] = mx.nd.array(momentum[rows])
    head.t.set_data(mx.nd.array([0.25]))
    head.sampler = {"seed": 7, "draws": 20}
    model.net.weight.set_data(mx.nd.array(np.arange(6).reshape(3, 2)))


def centres_and_momentum(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Return the class centres of this rank and their momentum, without rows of no class."""
    head = model.head
    if head.momentum:
        momentum = head.momentum["weight"]
    else:
        index = next(i for i, p in enumerate(model.shard_trainer._params) if p is head.weight)
        momentum = model.shard_trainer._updaters[0].states[index]
    keep = slice(None) if head.shard is None or head.shard.num_rows else slice(0)
    return head.weight.data().asnumpy()[keep], momentum.asnumpy()[keep]


@dataclass(frozen=True)
class ThreadComm(Comm):
    """Communication between ranks that are threads; `on_ranks` creates the objects."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))
    values: dict[int, Any] = field(default_factory=dict)

    def gather_json(self, value: Any) -> list[Any]:
        self.values[self.rank] = value
        self.barrier.wait(60)
        found = [self.values[rank] for rank in range(self.size)]
        self.barrier.wait(60)
        return found

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate(self.gather_json(rows))


def on_ranks(size: int, work: Callable[[Comm], Any]) -> list[Any]:
    """Call ``work`` on several ranks at once; return the results or exceptions in rank order."""
    barrier, values = threading.Barrier(size), {}

    def guarded(rank: int) -> Any:
        try:
            return work(ThreadComm(rank, size, rank, size, barrier, values))
        except ValueError as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(guarded, range(size)))


def save(
    parent: Path, num_classes: int, size: int, *, step: int = 20, run: str = RUN, **options: Any
) -> Path:
    """Save a checkpoint of ``size`` shards; return its folder."""
    state = {
        "progress": {"step": step},
        "run": run,
        "meta": {"net": {"name": "dense"}, "image_size": [8, 8], "num_classes": num_classes},
    }

    def work(comm: Comm) -> Path:
        model = make_model(num_classes, comm.rank, comm.size, **options)
        fill(model, num_classes)
        return save_checkpoint(parent, step, model, state=state, keep=3, comm=comm)

    folders = on_ranks(size, work)
    for folder in folders:
        if isinstance(folder, Exception):
            raise folder
    return folders[0]


def load(folder: Path, model: Model) -> Model:
    """Load a checkpoint into a model, after a verification of all its shards."""
    checkpoint = open_checkpoint(folder)
    if checkpoint.shards:
        checkpoint.shards.verify()
    checkpoint.load_net_parameters(model.net)
    checkpoint.load_head_parameters(model.head)
    checkpoint.load_momentum(model)
    return model
