# SPDX-License-Identifier: Apache-2.0
"""Convert our networks to graphs whose parameters have the names that checkpoints use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np
from mxnet import gluon

from interchange.graph import Graph, Node, Output
from interchange.mxnet_symbol import symbol_graph
from interchange.symbol_function import MAP_SHAPE
from nets import build_net

if TYPE_CHECKING:
    from interchange.model import StoredModel


def net_graph(
    net: gluon.HybridBlock,
    image_size: tuple[int, int],
    values: Mapping[str, np.ndarray] | None = None,
) -> Graph:
    """Convert one of our networks to a `Graph`.

    Parameters
    ----------
    net
        Network from `nets.build_net`; its parameters need no values.
    image_size
        (height, width) of the images in pixels.
    values
        float32 parameters by the names of ``_collect_params_with_prefix``.  None gives tensors that
        have the right shapes, contain zeros and use almost no memory.
    """
    # Trace the network for a GPU, where a PReLU is one node, LeakyReLU; a trace for a CPU would
    # express a PReLU as convolutions.  Tracing needs no GPU.
    with mx.gpu(0):
        symbol = net(mx.sym.var("data"))
    parameters = net._collect_params_with_prefix()
    arrays = {
        parameter.name: np.broadcast_to(np.float32(0), parameter.shape)
        if values is None
        else values[name]
        for name, parameter in parameters.items()
    }
    graph = symbol_graph(symbol, arrays, "net")
    own = {parameter.name: name for name, parameter in parameters.items()}
    renamed = replace(
        graph,
        nodes=tuple(
            replace(node, tensors={role: own[name] for role, name in node.tensors.items()})
            for node in graph
        ),
        tensors={own[name]: array for name, array in graph.tensors.items()},
        image_size=image_size,
    )
    return simplify(_with_layer_names(renamed, net.prefix))


def model_graph(model: StoredModel) -> Graph:
    """Convert a stored model to a graph with its parameters."""
    net = build_net(image_size=model.image_size, **model.net)
    return net_graph(net, model.image_size, model.parameters)


def simplify(graph: Graph) -> Graph:
    """Return the graph without identities and without reshapes around a batch normalisation.

    Our networks reshape embeddings (B, E) to (B, E, 1, 1) for the last batch normalisation, and
    flatten the result.  A graph needs no reshapes, because its batch normalisations normalise axis
    1 and accept both shapes.
    """
    users, nodes = graph.consumers(), graph.by_name()
    removed = set()
    for node in graph:
        inner = nodes.get(node.inputs[0].node) if node.inputs else None
        if node.op == "identity":
            removed.add(node.name)
        elif node.op == "flatten" and inner is not None and inner.op == "batch_norm":
            before = nodes.get(inner.inputs[0].node)
            alone = len(users.get(Output(inner.name), ())) == 1
            if before is not None and alone and _unflattens(before):
                removed |= {node.name, before.name}
    return graph.without(lambda node: node.name in removed)


def _unflattens(node: Node) -> bool:
    return node.op == "reshape" and node.attributes["shape"] == MAP_SHAPE


def _with_layer_names(graph: Graph, prefix: str) -> Graph:
    """Name each node after its first parameter: "stem.conv.weight" gives "stem_conv".

    A node without parameters keeps MXNet's name, without the prefix of the network.
    """
    names: dict[str, str] = {}
    for node in graph:
        first = next(iter(node.tensors.values()), "")
        name = first.rpartition(".")[0].replace(".", "_") or node.name.removeprefix(prefix)
        if name in names.values() or name in graph.inputs:
            name = f"{name}_{len(names)}"
        names[node.name] = name
    return replace(
        graph,
        nodes=tuple(
            replace(
                node,
                name=names[node.name],
                inputs=tuple(_renamed(value, names) for value in node.inputs),
            )
            for node in graph
        ),
        outputs=tuple(_renamed(value, names) for value in graph.outputs),
    )


def _renamed(value: Output, names: Mapping[str, str]) -> Output:
    return Output(names.get(value.node, value.node), value.index)
