# SPDX-License-Identifier: Apache-2.0
"""Time heads, networks and operators in PyTorch, with the Python interpreter of ``--torch``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness import inputs
from benchmarks.harness.worker import Work, serve
from benchmarks.steps import torch_nets

VERSIONS = {"torch": torch.__version__}


def build(what: str, **settings: Any) -> Work:
    """Return the `Work` of one kind of step: "head", "train" or "operator"."""
    steps: dict[str, Callable[..., Work]]
    steps = {"head": head_step, "train": train_step, "operator": operator_step}
    return steps[what](**settings)


def head_step(num_classes: int, embedding_size: int, batch: int) -> Work:
    """Return the `Work` of an ArcFace head alone: forward, backward and update."""
    embedding = torch.from_numpy(inputs.embeddings(batch, embedding_size)).requires_grad_()
    label = torch.from_numpy(inputs.labels(batch, num_classes))
    head = torch_nets.ArcFace(num_classes, embedding_size, inputs.MARGIN, inputs.SCALE)
    with torch.no_grad():
        for rows, values in inputs.centres(num_classes, embedding_size):
            head.weight[rows] = torch.from_numpy(values)
    optimizer = _optimizer(head)

    def step(mark: Callable[[], None]) -> float:
        embedding.grad = None
        optimizer.zero_grad()
        loss = head(embedding, label)
        loss.backward()
        mark()
        optimizer.step()
        return loss.item()

    return Work(step, 3 * 4 * head.weight.numel(), head.weight.numel(), VERSIONS)


def train_step(
    *, net: str, options: dict[str, Any], batch: int, num_classes: int, image_size: int
) -> Work:
    """Return the `Work` of a training step of a network and an ArcFace head, in channels_last."""
    torch.manual_seed(0)
    builder = getattr(torch_nets, net, None)
    network = builder(**options) if builder else torch_nets.iresnet(net, **options)
    network = network.to(memory_format=torch.channels_last).train()
    size = options["embedding_size"]
    head = torch_nets.ArcFace(num_classes, size, inputs.MARGIN, inputs.SCALE)
    both = nn.ModuleList([network, head])
    optimizer = _optimizer(both)
    image = torch.from_numpy(inputs.images(batch, image_size))
    image = image.contiguous(memory_format=torch.channels_last)
    label = torch.from_numpy(inputs.labels(batch, num_classes))

    def step(mark: Callable[[], None]) -> float:
        optimizer.zero_grad()
        loss = head(network(image), label)
        loss.backward()
        optimizer.step()
        return loss.item()

    trained = sum(p.numel() for p in both.parameters())
    kept = sum(b.numel() for b in both.buffers())
    return Work(step, 4 * (3 * trained + kept), trained, VERSIONS)


def operator_step(operator: str, shape: list[int]) -> Work:
    """Return the `Work` of PReLU, alone or after batch normalisation: forward and backward."""
    values, gradient = (torch.from_numpy(a) for a in inputs.features(tuple(shape)))
    values.requires_grad_()
    act = nn.PReLU(shape[1])
    layers = [act] if operator == "prelu" else [nn.BatchNorm2d(shape[1]), act]
    block = nn.Sequential(*layers).train()

    def step(mark: Callable[[], None]) -> float:
        block.zero_grad()
        values.grad = None
        block(values).backward(gradient)
        return act.weight.grad.abs().sum().item()

    return Work(step, 3 * 4 * values.numel(), shape[1], VERSIONS)


def warm() -> None:
    """Start the threads of PyTorch with a small matrix product."""
    matrix = torch.from_numpy(np.ones((512, 512), np.float32))
    matrix @ matrix


def _optimizer(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        [p for p in module.parameters() if p.requires_grad],
        lr=inputs.LR,
        momentum=inputs.MOMENTUM,
        weight_decay=inputs.WEIGHT_DECAY,
        fused=True,  # This is PyTorch's fastest SGD: one pass over the parameters.
    )


if __name__ == "__main__":
    serve(build, warm)
