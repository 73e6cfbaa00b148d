# SPDX-License-Identifier: Apache-2.0
"""Computation graph of a network, independent of the file format that it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Output(NamedTuple):
    """One output of a node, or an input of the graph."""

    node: str
    """Name of the node or of the input of the graph."""
    index: int = 0
    """Number of the output, counted from 0."""


@dataclass(frozen=True)
class Node:
    """One operation of a graph."""

    name: str
    op: str
    """Name of the operation, for example "conv", "batch_norm", "prelu", "dense" or "add"."""
    inputs: tuple[Output, ...]
    """Values that other nodes, or the inputs of the graph, pass to this operation."""
    tensors: Mapping[str, str] = field(default_factory=dict)
    """Mapping from the role of a parameter, for example "weight" or "running_mean", to the name of
    its tensor."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the operation, for example "stride": (2, 2)."""


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order and the tensors that they use.

    Inputs and outputs are images and embeddings: a graph takes (B, 3, H, W) float32 and returns
    (B, E) float32, where B is the number of images and E the number of dimensions of an embedding.
    """

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    tensors: Mapping[str, np.ndarray]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)
