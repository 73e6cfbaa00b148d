# SPDX-License-Identifier: Apache-2.0
"""Run training steps of InsightFace's head PartialFC_V2 on one of several ranks, on the CPU.

The code of InsightFace stays where it is: the setting ``insightface`` names the folder that holds
partial_fc_v2.py and losses.py (recognition/arcface_torch).  The optimizer is that of its
train_v2.py.  InsightFace's code moves arrays to the GPU with ``Tensor.cuda``; here that method
returns the array unchanged.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from benchmarks.harness import inputs
from benchmarks.harness.step_costs import StepCosts
from benchmarks.harness.worker import SOCKET_VARIABLE, Work, own_rank, serve
from benchmarks.steps import torch_steps


def build(
    *,
    num_classes: int,
    embedding_size: int,
    batch: int,
    ranks: int,
    sample_rate: float,
    margin: str,
    insightface: str,
    fused: bool = False,
) -> Work:
    """Return the `Work` of a head alone on this rank: forward, backward and update.

    Parameters
    ----------
    insightface
        Folder recognition/arcface_torch of a checkout of InsightFace.
    fused
        Use PyTorch's fused SGD, which updates the class centres in one pass.  False: PyTorch's
        default SGD, as in train_v2.py.

    The other parameters are those of `benchmarks.steps.sharded_steps.build`.
    """
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    connect(ranks)
    sys.path.insert(0, insightface)
    from losses import CombinedMarginLoss
    from partial_fc_v2 import PartialFC_V2

    def keep(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return tensor

    torch.Tensor.cuda = keep
    own = slice(own_rank() * batch, (own_rank() + 1) * batch)
    embedding = torch.from_numpy(inputs.embeddings(ranks * batch, embedding_size)[own].copy())
    embedding.requires_grad_()
    label = torch.from_numpy(inputs.labels(ranks * batch, num_classes)[own].copy())
    margins = {"m2": 0.0, "m3": 0.0, **inputs.MARGINS[margin]}
    loss_of_margin = CombinedMarginLoss(inputs.SCALE, 1.0, margins["m2"], margins["m3"])
    head = PartialFC_V2(loss_of_margin, embedding_size, num_classes, sample_rate)
    set_centres(head, num_classes, embedding_size)
    options = {"fused": True} if fused else {}
    optimizer = torch.optim.SGD(
        head.parameters(),
        lr=inputs.LR,
        momentum=inputs.MOMENTUM,
        weight_decay=inputs.WEIGHT_DECAY,
        **options,
    )
    costs = StepCosts()

    def step(mark: Callable[[], None]) -> float:
        # Pass a copy, because PartialFC_V2 changes the shape of the labels in place.
        loss = head(embedding, label.clone())
        loss.backward()
        mark()
        optimizer.step()
        optimizer.zero_grad()
        embedding.grad = None
        costs.steps += 1
        return loss.item()

    size = head.weight.numel()
    return Work(
        step, 3 * 4 * size, size, torch_steps.VERSIONS, begin=costs.start, end=costs.per_step
    )


def connect(ranks: int) -> None:
    """Connect this rank to the others with Gloo, through a file beside the socket of requests."""
    store = Path(os.environ[SOCKET_VARIABLE]).with_name("store")
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=own_rank(), world_size=ranks
    )


def set_centres(head: Any, num_classes: int, embedding_size: int) -> None:
    """Set the class centres of this rank to the values of `inputs.centres`."""
    start, stop = head.class_start, head.class_start + head.num_local
    with torch.no_grad():
        for rows, values in inputs.centres(num_classes, embedding_size):
            low, high = max(rows.start, start), min(rows.stop, stop)
            if low < high:
                part = values[low - rows.start : high - rows.start]
                head.weight[low - start : high - start] = torch.from_numpy(part)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.cuda.amp.autocast
    serve(build, torch_steps.warm)
