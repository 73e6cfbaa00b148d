# SPDX-License-Identifier: Apache-2.0
"""Run training steps of our head with distributed class centres on one of several Horovod ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.harness import inputs
from benchmarks.harness.step_costs import StepCosts
from benchmarks.harness.worker import Work, serve
from benchmarks.steps import mxnet_steps
from launch.ranks.malloc import keep_memory

# As in run_train.py, this call must come before any thread starts.
if __name__ == "__main__":
    keep_memory()


def build(
    *,
    num_classes: int,
    embedding_size: int,
    batch: int,
    ranks: int,
    sample_rate: float,
    margin: str,
    fused: bool = True,
) -> Work:
    """Return the `Work` of a head alone on this rank: forward, backward and update.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes of all ranks together, and embedding size.
    batch
        Embeddings per rank.
    ranks
        Number of ranks.
    sample_rate
        Fraction of the classes that take part in a step.
    margin
        Name of the head: "cosface" or "arcface".
    fused
        Whether the fused operator updates the class centres.
    """
    import mxnet as mx
    from mxnet import autograd

    from heads import build_head
    from heads.shard_centres import Step
    from heads.sharded import Sharding
    from launch.ranks.comm import connect

    costs, sgd = StepCosts(), Step(inputs.MOMENTUM, inputs.WEIGHT_DECAY)
    comm = counted(connect(), costs)
    own = slice(comm.rank * batch, (comm.rank + 1) * batch)
    embedding = mx.nd.array(inputs.embeddings(ranks * batch, embedding_size)[own])
    embedding.attach_grad()
    label = mx.nd.array(inputs.labels(ranks * batch, num_classes)[own])
    head = build_head(
        margin,
        num_classes,
        embedding_size,
        comm.reduce,
        fused_update=sgd._asdict() if fused else None,
        sharding=Sharding(comm, 1, sgd),
        sharded=True,
        sample_rate=sample_rate,
        scale=inputs.SCALE,
        **inputs.MARGINS[margin],
    )
    head.initialize(mx.init.Zero())
    # Sync: wait until Gluon has freed the first copy of the class centres.
    mx.nd.waitall()
    set_centres(head, num_classes, embedding_size)
    own_update = head.weight.grad_req == "null"
    trainer = None if own_update else mxnet_steps.sgd_trainer(head.collect_params())
    rate = mx.nd.full((1,), inputs.LR)

    def step(mark: Callable[[], None]) -> float:
        with autograd.record():
            loss, _ = head(embedding, label)
        loss.backward()
        mx.nd.waitall()
        mark()
        if trainer:
            trainer.step(ranks * batch)
        else:
            head.update(rate)
        mx.nd.waitall()
        costs.steps += 1
        return float(loss.asnumpy().mean())

    size = head.weight.data().size
    return Work(
        step,
        4 * size * (2 if own_update else 3),
        size,
        mxnet_steps.versions(),
        begin=costs.start,
        end=costs.per_step,
    )


def counted(comm: Any, costs: StepCosts) -> Any:
    """Return a copy of ``comm`` that counts the bytes of the arrays that it sums over the ranks."""
    if comm.size == 1:
        return comm

    class CountedComm(type(comm)):  # type: ignore[misc]
        """Communication that counts the bytes of all sums; a gather of rows is also such a sum."""

        def sum_rows(self, rows: Any, key: str) -> Any:
            costs.passed_bytes += rows.size * rows.dtype().itemsize
            return super().sum_rows(rows, key)

    return CountedComm(comm.rank, comm.size, comm.local_rank, comm.local_size)


def set_centres(head: Any, num_classes: int, embedding_size: int) -> None:
    """Set the class centres of this rank to the values of `inputs.centres`."""
    start, stop = head.shard.start, head.shard.stop
    for rows, values in inputs.centres(num_classes, embedding_size):
        low, high = max(rows.start, start), min(rows.stop, stop)
        if low < high:
            part = values[low - rows.start : high - rows.start]
            # Assignment would allocate an NDArray for every chunk; the allocator keeps that memory.
            head.weight.data()[low - start : high - start]._sync_copyfrom(part)


if __name__ == "__main__":
    serve(build, mxnet_steps.warm)
