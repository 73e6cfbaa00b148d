# SPDX-License-Identifier: Apache-2.0
"""Compute an MXNet symbol of another project directly, without conversion to our networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import mxnet as mx
from mxnet import gluon

if TYPE_CHECKING:
    import numpy as np

MAP_SHAPE = (0, -1, 1, 1)
"""Argument ``shape`` with which MXNet's Reshape converts (B, C) to (B, C, 1, 1)."""


def symbol_function(
    symbol: mx.sym.Symbol, arrays: Mapping[str, np.ndarray], image_size: tuple[int, int]
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that computes a symbol in MXNet, from (B, 3, H, W) to (B, E) float32.

    Parameters
    ----------
    symbol
        Symbol with one input and one output.
    arrays
        Values of all other variables, by name; further arrays are ignored.
    image_size
        (height, width) of the images in pixels.
    """

    def compute(images: np.ndarray) -> np.ndarray:
        variables = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
        (data,) = (name for name in variables if name not in arrays)
        shapes = {name: arrays[name].shape for name in variables if name != data}
        shapes[data] = (1, 3, *image_size)
        safe = reshape_vectors(symbol, shapes)
        block = gluon.SymbolBlock(safe, mx.sym.var(data, dtype="float32"))
        for name, parameter in block.params.items():
            parameter._load_init(mx.nd.array(arrays[name], dtype="float32"), mx.cpu())
        with mx.autograd.pause(train_mode=False):
            return block(mx.nd.array(images)).asnumpy()

    return compute


def reshape_vectors(symbol: mx.sym.Symbol, shapes: Mapping[str, tuple[int, ...]]) -> mx.sym.Symbol:
    """Return a symbol that reshapes inputs (B, C) of batch normalisations to (B, C, 1, 1).

    The result computes the same function, and avoids a fault of MXNet.  MXNet caches oneDNN's batch
    normalisations by shape.  For (B, C) MXNet would reuse a batch normalisation that was created
    for (B, C, 1, 1), and the process would end with a segmentation fault.

    Parameters
    ----------
    shapes
        Shapes of the variables, by name.
    """
    internals = symbol.get_internals()
    _, outputs, _ = internals.infer_shape_partial(**shapes)
    ranks = {
        name: len(shape or ())
        for name, shape in zip(internals.list_outputs(), outputs or (), strict=False)
    }
    content = json.loads(symbol.tojson())
    nodes: list[dict[str, Any]] = []
    numbers: list[int] = []  # index of a node in `content` -> its index in `nodes`
    for node in content["nodes"]:
        inputs = [[numbers[entry[0]], *entry[1:]] for entry in node["inputs"]]
        vector = node["op"] == "BatchNorm" and ranks.get(f"{node['name']}_output") == 2
        if vector:
            shape = {"shape": str(MAP_SHAPE)}
            nodes.append(
                {"op": "Reshape", "name": f"{node['name']}_map", "attrs": shape,
                 "inputs": inputs[:1]}
            )  # fmt: skip
            inputs[0] = [len(nodes) - 1, 0, 0]
        nodes.append({**node, "inputs": inputs})
        if vector:
            nodes.append(
                {"op": "Flatten", "name": f"{node['name']}_vector",
                 "inputs": [[len(nodes) - 1, 0, 0]]}
            )  # fmt: skip
        numbers.append(len(nodes) - 1)
    heads = [[numbers[entry[0]], *entry[1:]] for entry in content["heads"]]
    arguments = [number for number, node in enumerate(nodes) if node["op"] == "null"]
    changed = {"nodes": nodes, "heads": heads, "arg_nodes": arguments, "attrs": content["attrs"]}
    return mx.sym.load_json(json.dumps(changed))
