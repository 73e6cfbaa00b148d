# SPDX-License-Identifier: Apache-2.0
"""Convert ONNX models to graphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from interchange.model import InterchangeError
from interchange.onnx_arithmetic import ARITHMETIC
from interchange.onnx_constants import fold
from interchange.onnx_file import network_output
from interchange.onnx_read_layers import LAYERS
from interchange.onnx_reader import GraphReader, describe
from interchange.onnx_shapes import SHAPES

if TYPE_CHECKING:
    from onnx import ModelProto

    from interchange.graph import Graph

EMBEDDING = "fc1"
"""Name of the output of embeddings in files with several outputs."""
OPERATORS = {**LAYERS, **ARITHMETIC, **SHAPES}


def onnx_graph(model: ModelProto, path: str | Path, image_size: tuple[int, int]) -> Graph:
    """Convert an ONNX model with one input of images to a `Graph`.

    The number of images per batch becomes free, even if the file fixes it.

    Raises
    ------
    InterchangeError
        If an operator, or one of its settings, has no counterpart; the message names the node.
    """
    output = network_output(model, path, EMBEDDING)
    reader = GraphReader(model, path, image_size)
    for node in _needed(model, output):
        if fold(reader, node):
            continue
        read = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if read is None:
            operator = f"{node.domain}.{node.op_type}".lstrip(".")
            raise InterchangeError(
                f"{path}: node {describe(node)}: the operator is not supported, got {operator}; "
                "export the network with other operators"
            )
        try:
            read(reader, node)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            if isinstance(error, InterchangeError):
                raise
            raise InterchangeError(
                f"{path}: node {describe(node)}: inputs and settings must be consistent, got "
                f"{type(error).__name__}: {error}; export the network again"
            ) from None
    return reader.graph(output, image_size)


def _needed(model: ModelProto, output: str) -> list:
    """Return the nodes that an output depends on, in the order of the model."""
    needed, nodes = {output}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    return nodes[::-1]
