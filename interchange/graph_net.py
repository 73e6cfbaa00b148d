# SPDX-License-Identifier: Apache-2.0
"""Turn a graph into a stored model: one of our networks, or else the network "graph".

The network "graph" is a Gluon block that computes an MXNet symbol, see `nets.graph.GraphNet`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from interchange.graph_symbol import graph_symbol
from interchange.model import InterchangeError, StoredModel
from interchange.recognise import USUAL_IMAGE_SIZE, recognise

if TYPE_CHECKING:
    from interchange.graph import Graph, Output

NAMES = {"slope": "alpha"}
"""Mapping from the role of a tensor to the last part of its parameter name, where they differ.

The slopes of a PReLU are named alpha, because training applies no weight decay to parameters whose
names end in alpha."""
MAX_ELEMENTS = 2**31
"""For a batch of one image, each value of a graph must have fewer elements than this number."""


def stored_model(
    graph: Graph,
    *,
    source: str,
    kind: str,
    image_size: tuple[int, int] | None = None,
    **fields: Any,
) -> tuple[StoredModel, tuple[str, ...]]:
    """Return the stored model that computes the same embeddings as a graph.

    Parameters
    ----------
    graph
        Graph whose input is normalised as our networks need it, see `interchange.input_contract`.
    source, kind, fields
        Fields of the `StoredModel`.
    image_size
        (height, width) of the images in pixels; None for the size that the graph states or, if it
        states none, a size that fits the graph.

    Returns
    -------
    The model, and the names of our batch normalisations that the graph has folded into the
    preceding layer, see `interchange.matching.Match.unfolded`.

    Raises
    ------
    InterchangeError
        If MXNet cannot compute the graph.
    """
    notices = tuple(fields.pop("notices", ()))
    try:
        found = recognise(graph, source, image_size)
    except InterchangeError as error:
        size = image_size or graph.image_size or USUAL_IMAGE_SIZE
        net, parameters = graph_net(graph, source, size)
        reason = str(error).rpartition("; ")[0] or str(error)
        notice = (
            "the network is none of this project's networks and is used as a graph "
            f'(net.name "graph"): {reason}'
        )
        model = StoredModel(
            source, kind, net, size, parameters, notices=(*notices, notice), **fields
        )
        return model, ()
    model = StoredModel(
        source,
        kind,
        found.net,
        found.image_size,
        found.match.parameters,
        notices=notices,
        **fields,
    )
    return model, found.match.unfolded


def graph_net(
    graph: Graph, where: str, image_size: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the arguments of `nets.build_net` for a graph, and the parameters of that network.

    If all channels of a PReLU share one slope, the parameters contain this slope once for each
    channel.

    Raises
    ------
    InterchangeError
        If MXNet cannot compute the graph for images of this size.
    """
    sized = replace(graph, image_size=image_size).pruned()
    parts = graph_symbol(_with_slopes(sized, where), where, suffixes=NAMES)
    shapes = infer_shapes(parts.symbol, parts.parameters, where, image_size)
    (output,) = parts.symbol.list_outputs()
    if len(shapes[output]) != 2 or shapes[output][0] != 1:
        raise InterchangeError(
            f"{where}: the output must be one vector per image, got the shape {shapes[output]} for "
            "one image; use a network that computes embeddings"
        )
    net = {
        "name": "graph",
        "symbol": parts.symbol.tojson(),
        "embedding_size": shapes[output][1],
    }
    return net, parts.parameters


def infer_shapes(
    symbol: mx.sym.Symbol,
    parameters: dict[str, np.ndarray],
    where: str,
    image_size: tuple[int, int],
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all values in a symbol for one image, keyed by the names of the values.

    Raises
    ------
    InterchangeError
        If a tensor does not fit its layer, or if a value would be too large.
    """
    internals = symbol.get_internals()
    known = {name: array.shape for name, array in parameters.items()}
    try:
        _, outputs, _ = internals.infer_shape(data=(1, 3, *image_size), **known)
    except (mx.base.MXNetError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InterchangeError(
            f"{where}: the layers must fit images of {image_size[0]}x{image_size[1]} pixels, got "
            f"{lines[-1] if lines else error}; use undamaged files that belong to each other"
        ) from None
    shapes = dict(zip(internals.list_outputs(), outputs or (), strict=True))
    for name, shape in shapes.items():
        if np.prod(shape, dtype=float) >= MAX_ELEMENTS:
            raise InterchangeError(
                f"{where}: each value must have fewer than {MAX_ELEMENTS:,} elements for one "
                f"image, got {name!r} of shape {shape}; use a smaller network"
            )
    return shapes


def _with_slopes(graph: Graph, where: str) -> Graph:
    """Repeat the slope of each PReLU whose channels share one slope, once for each channel."""
    shared = [n for n in graph if n.op == "prelu" and graph.tensors[n.tensors["slope"]].size == 1]
    if not shared:
        return graph
    parts = graph_symbol(graph, where, suffixes=NAMES)
    assert graph.image_size is not None
    shapes = infer_shapes(parts.symbol, parts.parameters, where, graph.image_size)
    tensors, nodes = dict(graph.tensors), []
    for node in graph:
        if node in shared:
            channels = _shape(shapes, node.inputs[0], graph)[1]
            name = f"{node.name}:slopes"
            slope = graph.tensors[node.tensors["slope"]].reshape(1)
            tensors[name] = np.ascontiguousarray(np.broadcast_to(slope, (channels,)))
            node = replace(node, tensors={"slope": name})
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes), tensors=tensors).pruned()


def _shape(shapes: dict[str, tuple[int, ...]], value: Output, graph: Graph) -> tuple[int, ...]:
    """Look up the shape of a graph's value in ``shapes``, the result of `infer_shapes`."""
    if value.node in graph.inputs:
        return shapes["data"]
    node = graph.by_name()[value.node]
    several = node.attributes.get("parts", 1) > 1
    return shapes[f"{value.node}_output{value.index if several else ''}"]
