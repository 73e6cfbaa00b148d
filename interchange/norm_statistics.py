# SPDX-License-Identifier: Apache-2.0
"""Statistics for batch normalisations that a model file has folded into the preceding layers.

A layer with a folded batch normalisation computes x + b, where b is its bias and x its output
without the bias.  Let m and v be the mean and the variance of x on images.  Then the batch
normalisation of x with ``gamma = sqrt(v + epsilon)``, ``beta = b + m``, ``running_mean = m`` and
``running_var = v`` computes x + b.  Training replaces m and v by the statistics of the batch, which
are about equal to m and v.  Training therefore starts from the function that the model file
computes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np

from interchange.graph_symbol import graph_symbol
from interchange.net_graph import model_graph
from normalization import MEAN, STD

if TYPE_CHECKING:
    from interchange.graph import Graph, Node
    from interchange.model import StoredModel

BATCH_SIZE = 16
NOISE_IMAGES = 8


def with_statistics(
    model: StoredModel, norms: Collection[str], images: np.ndarray | None
) -> StoredModel:
    """Return a model whose folded batch normalisations have the statistics of their inputs.

    A batch normalisation was folded if the file has multiplied it into the weights of another
    layer.  The model still has this batch normalisation, but it only adds the bias of that layer.
    Its running mean and variance become those of its inputs; gamma and beta change so that the
    embeddings stay the same.

    Parameters
    ----------
    model
        One of our networks.
    norms
        Names of the folded batch normalisations, for example "stem.norm".
    images
        Pixels (N, H, W, 3) uint8 in RGB, of the size of the model; None for random noise.
    """
    notices = model.notices
    if images is None:
        sides = (NOISE_IMAGES, *model.image_size, 3)
        images = np.random.default_rng(0).integers(0, 256, sides, np.uint8)
        notices = (
            *notices,
            f"the file has folded {len(norms)} batch normalisations into other layers and lacks "
            "their statistics; these are estimated from images of random noise; before "
            "fine-tuning, import the file with real face images (--calibrate)",
        )
    graph = model_graph(model)
    folded = [
        node
        for node in graph
        if node.op == "batch_norm" and node.tensors["gamma"].rpartition(".")[0] in norms
    ]
    found = _statistics(graph, folded, images)
    parameters = dict(model.parameters)
    for node, (mean, variance) in zip(folded, found, strict=True):
        scale = np.sqrt(variance + node.attributes["epsilon"])
        beta = model.parameters[node.tensors["beta"]] + mean
        values = {"gamma": scale, "beta": beta, "running_mean": mean, "running_var": variance}
        for role, value in values.items():
            parameters[node.tensors[role]] = value.astype(np.float32)
    return replace(model, parameters=parameters, notices=notices)


def _statistics(
    graph: Graph, norms: list[Node], images: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return mean and variance of the input of each batch normalisation, (C,) float64 each."""
    moments = _moments(graph, norms)
    total, results = 0, [(np.zeros(1), np.zeros(1)) for _ in norms]
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE].transpose(0, 3, 1, 2).astype(np.float32)
        outputs = iter(moments(mx.nd.array((batch - MEAN) / STD)))
        results = [
            _combined(old, (next(outputs), next(outputs)), total, len(batch)) for old in results
        ]
        total += len(batch)
    return results


def _moments(graph: Graph, norms: list[Node]) -> mx.gluon.SymbolBlock:
    """Return a block that computes mean and variance of the inputs of batch normalisations."""
    ends = tuple(norm.inputs[0] for norm in norms)
    parts = graph_symbol(replace(graph, outputs=ends), "model")
    outputs: list[mx.sym.Symbol] = []
    for values in parts.symbol:
        mean = mx.sym.mean(values, axis=1, exclude=True, keepdims=True)
        centred = mx.sym.broadcast_sub(values, mean)
        variance = mx.sym.mean(mx.sym.square(centred), axis=1, exclude=True)
        outputs += [mx.sym.reshape(mean, shape=(-1,)), variance]
    block = mx.gluon.SymbolBlock(outputs, mx.sym.var("data", dtype="float32"))
    for name, parameter in block.collect_params().items():
        parameter._load_init(mx.nd.array(parts.parameters[name], dtype="float32"), mx.cpu())
    return block


def _combined(
    old: tuple[np.ndarray, np.ndarray], new: tuple[mx.nd.NDArray, ...], count: int, added: int
) -> tuple[np.ndarray, np.ndarray]:
    """Combine mean and variance of two sets of images (Chan et al., 1979)."""
    mean, variance = (values.asnumpy().astype(np.float64) for values in new)
    share = added / (count + added)
    change = mean - old[0]
    both = old[1] * (1 - share) + variance * share + change**2 * share * (1 - share)
    return old[0] + change * share, both
