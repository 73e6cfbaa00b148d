# SPDX-License-Identifier: Apache-2.0
"""Layers of a network: shapes, parameters, multiply-accumulates (MACs) and activation memory.

All numbers come from the symbol graph, so the parameters of a network may be uninitialised.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import mxnet as mx
from mxnet import gluon

BYTES_PER_VALUE = 4
"""Size of a float32 value in bytes."""
RUNNING = ("running_mean", "running_var")
"""Ends of the names of the running statistics of batch normalisation, which are not learned."""
_PRODUCTS = ("batch_dot", "_linalg_gemm2")


class Layer(NamedTuple):
    """One operation of a network, for one image."""

    name: str
    """Name of the block that holds the parameters, or of the operation in the graph."""
    operator: str
    """Name of MXNet's operator."""
    shape: tuple[int, ...]
    """Shape of the output without the batch axis."""
    parameters: int
    """Number of learned parameters, except those that an earlier layer uses too."""
    running_statistics: int
    """Number of running means and variances of batch normalisation."""
    macs: int
    """Number of multiply-accumulates for one image."""

    @property
    def activation_bytes(self) -> int:
        """Return the size of the output for one image in bytes."""
        return BYTES_PER_VALUE * math.prod(self.shape)


@dataclass(frozen=True)
class Size:
    """Number of parameters and of multiply-accumulates (MACs) of one network."""

    parameters: int
    """Number of parameters, counted as in papers.

    The number includes the fixed scale of the last batch normalisation.  It does not include the
    running statistics and the class centres.
    """
    running_statistics: int
    """Number of running means and variances of batch normalisation."""
    macs: int
    """Number of multiply-accumulates for one image."""
    activation_bytes: int = 0
    """Size of the outputs of all layers for one image in bytes."""

    @property
    def mebibytes(self) -> float:
        """Return the size in MiB of all parameters and running statistics, stored as float32."""
        return BYTES_PER_VALUE * (self.parameters + self.running_statistics) / 2**20


def list_layers(net: gluon.HybridBlock, image_size: tuple[int, int]) -> list[Layer]:
    """Return the layers of a network in the order in which inference computes them.

    Parameters
    ----------
    net
        Network with inputs (B, 3, H, W); the shapes of all parameters must be known.
    image_size
        (height, width) of the images in pixels.

    Notes
    -----
    A convolution needs one multiply-accumulate for each weight at each output pixel.  A linear
    layer needs one for each weight at each token.  A product of matrices needs one for each
    product of two numbers.  As in papers, the operations of batch normalisations, activations and
    sums are not counted.
    """
    # Trace the graph for a GPU, which also works on a machine without one: PReLU is then one
    # LeakyReLU.  In a graph for the CPU, PReLU consists of several operators, with convolutions.
    with mx.gpu(0):
        graph = net(mx.sym.var("data"))
    internals = graph.get_internals()
    _, shapes, _ = internals.infer_shape(data=(1, 3, *image_size))
    shape_of = dict(zip(internals.list_outputs(), shapes, strict=True))
    nodes = json.loads(graph.tojson())["nodes"]
    own = {p.name: name for name, p in net._collect_params_with_prefix().items()}
    counted: set[str] = set()
    layers = []
    for node in nodes:
        if node["op"] == "null":
            continue
        names = [nodes[entry[0]]["name"] for entry in node["inputs"]]
        held = [name for name in names if name in own]
        fresh = [name for name in dict.fromkeys(held) if name not in counted]
        counted.update(fresh)
        sizes = {name: math.prod(shape_of[name]) for name in fresh}
        running = sum(size for name, size in sizes.items() if name.endswith(RUNNING))
        inputs = [_output_shape(shape_of, nodes[entry[0]], entry[1]) for entry in node["inputs"]]
        output = _output_shape(shape_of, node, 0)
        layers.append(
            Layer(
                _block_of(own[held[0]]) if held else node["name"].removeprefix(net.prefix),
                node["op"],
                output[1:],
                sum(sizes.values()) - running,
                running,
                _count_macs(node, inputs, output),
            )
        )
    return layers


def measure(net: gluon.HybridBlock, image_size: tuple[int, int] = (112, 112)) -> Size:
    """Count the parameters, the multiply-accumulates (MACs) and the activation memory of a network.

    The parameters include those that only training uses.

    Parameters
    ----------
    net
        Network with inputs (B, 3, H, W); the shapes of all parameters must be known.
    image_size
        (height, width) of the images in pixels.
    """
    learned = running = 0
    for name, parameter in net.collect_params().items():
        if name.endswith(RUNNING):
            running += math.prod(parameter.shape)
        else:
            learned += math.prod(parameter.shape)
    layers = list_layers(net, image_size)
    macs = sum(layer.macs for layer in layers)
    return Size(learned, running, macs, sum(layer.activation_bytes for layer in layers))


def _block_of(parameter: str) -> str:
    """Return the name of the block that holds a parameter.

    For a parameter of the network itself, return the name of the parameter.
    """
    return parameter.rpartition(".")[0] or parameter


def _output_shape(
    shape_of: Mapping[str, tuple[int, ...]], node: Mapping[str, Any], index: int
) -> tuple[int, ...]:
    name = node["name"]
    found = (f"{name}_output{index}", f"{name}_output", name)
    return next((shape_of[each] for each in found if each in shape_of), ())


def _count_macs(
    node: Mapping[str, Any], inputs: list[tuple[int, ...]], output: tuple[int, ...]
) -> int:
    """Return the number of multiply-accumulates of one operation for one image."""
    if node["op"] == "Convolution":
        return math.prod(inputs[1]) * math.prod(output[2:])
    if node["op"] == "FullyConnected":
        return math.prod(inputs[1]) * math.prod(output[1:-1])
    if node["op"] in _PRODUCTS:
        transposed = (node.get("attrs") or {}).get("transpose_a") in ("True", "1")
        return math.prod(output) * inputs[0][-2 if transposed else -1]
    return 0
