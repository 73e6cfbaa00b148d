# SPDX-License-Identifier: Apache-2.0
"""Write a stored model as an MXNet symbol and parameters, in the layout of InsightFace's models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mxnet as mx
import numpy as np

from atomic_write import atomic_write_together
from interchange.comparison import Embed, model_function, require_equal
from interchange.graph import Graph, Node, Output
from interchange.graph_symbol import graph_symbol
from interchange.model import InterchangeError, StoredModel
from interchange.mxnet_symbol import CENTRES, EMBEDDING
from interchange.net_graph import model_graph
from interchange.symbol_function import symbol_function
from mxnet_arrays import write_arrays
from normalization import MEAN, STD

SUBTRACTION, MULTIPLICATION = "_minusscalar0", "_mulscalar0"
"""Names of the nodes that scale the pixels."""
BEFORE_EMBEDDING = "pre_fc1"
"""Name of the dense layer before the last batch normalisation."""


def write_symbol(
    model: StoredModel, prefix: str | Path, *, epoch: int = 0, with_centres: bool = False
) -> float:
    """Write ``PREFIX-symbol.json`` and ``PREFIX-<epoch>.params``.

    The input ``data`` is RGB pixels (B, 3, H, W) from 0 to 255; the scaling is part of the symbol.
    The output ``fc1_output`` is the embedding (B, E), which is not normalised.  The files have
    temporary names until their embeddings agree with those of the network on 64 random images.

    The symbol differs from InsightFace's in one point: the input of the last batch normalisation
    has the shape (B, E, 1, 1), and ``fc1`` flattens the result.  The docstring of
    `interchange.symbol_function.reshape_vectors` gives the reason.

    Parameters
    ----------
    prefix
        Path of both files without their endings; the folder must exist.
    epoch
        Number in the name of the parameter file, from 0 to 9999.
    with_centres
        Whether to write the class centres: the symbol then has a second output ``fc7_output``
        (B, classes), the cosines to the class centres, and the parameter file has the class centres
        under the name ``fc7_weight``.

    Returns
    -------
    The largest absolute difference between the normalised embeddings of the files and the network.

    Raises
    ------
    InterchangeError
        If the model has no class centres, if the files cannot be written, or if their embeddings
        differ from those of the network.
    """
    prefix = Path(prefix)
    if not 0 <= epoch <= 9999:
        raise InterchangeError(f"epoch: must be from 0 to 9999, got {epoch}; 0 is usual")
    if not prefix.resolve().parent.is_dir():
        raise InterchangeError(
            f"{prefix}: the folder of the files must exist, got no such folder; create it"
        )
    parts = graph_symbol(export_graph(model), str(prefix))
    auxiliary = parts.symbol.list_auxiliary_states()
    arrays = {
        f"{'aux' if name in auxiliary else 'arg'}:{name}": array
        for name, array in parts.parameters.items()
    }
    symbol = parts.symbol
    if with_centres:
        centres = find_centres(model)
        symbol = _with_cosines(symbol, centres)
        arrays[f"arg:{CENTRES}"] = centres
    names = (f"{prefix}-symbol.json", f"{prefix}-{epoch:04d}.params")
    try:
        with atomic_write_together(names) as (symbol_file, parameter_file):
            symbol_file.write(symbol.tojson().encode())
            write_arrays(parameter_file, arrays)
            for file in (symbol_file, parameter_file):
                file.flush()
            embed = _load(symbol_file.name, parameter_file.name, model.image_size)
            return require_equal(embed, model_function(model), model.image_size, str(prefix))
    except OSError as error:
        raise InterchangeError(
            f"{prefix}: the files cannot be written, got {error.strerror}; free disk space, or "
            "choose another folder"
        ) from None


def export_graph(model: StoredModel) -> Graph:
    """Return the graph of a model from pixels to embeddings, with InsightFace's names.

    The graph begins with the scaling nodes and contains no dropout.  Its last node is ``fc1``.
    """
    graph = model_graph(model).without(lambda node: node.op == "dropout")
    return name_ends(scale_pixels(graph))


def scale_pixels(graph: Graph) -> Graph:
    """Put InsightFace's scaling of pixels, (x - 127.5) * 0.0078125, in front of a graph."""
    data = Output(graph.inputs[0])
    subtraction = Node(SUBTRACTION, "affine", (data,), {}, {"scale": 1.0, "shift": -MEAN})
    multiplication = Node(
        MULTIPLICATION, "affine", (Output(SUBTRACTION),), {}, {"scale": 1 / STD, "shift": 0.0}
    )
    scaled = Output(MULTIPLICATION)
    nodes = [
        replace(node, inputs=tuple(scaled if value == data else value for value in node.inputs))
        for node in graph
    ]
    return replace(graph, nodes=(subtraction, multiplication, *nodes))


def name_ends(graph: Graph) -> Graph:
    """Name the last node ``fc1`` and a dense layer before it ``pre_fc1``, as InsightFace does."""
    last, nodes = graph.outputs[0], graph.by_name()
    if last.index or last.node not in nodes or nodes[last.node].attributes.get("parts", 1) > 1:
        end = Node(EMBEDDING, "identity", (last,))
        graph = replace(graph, nodes=(*graph.nodes, end), outputs=(Output(EMBEDDING),))
        last, nodes = Output(EMBEDDING), graph.by_name()
    wanted = {last.node: EMBEDDING}
    inputs = nodes[last.node].inputs
    if len(inputs) == 1 and inputs[0].node in nodes and nodes[inputs[0].node].op == "dense":
        wanted[inputs[0].node] = BEFORE_EMBEDDING
    taken = {*wanted.values(), *graph.inputs, SUBTRACTION, MULTIPLICATION}
    names = {}
    for node in graph:
        own = node.name in (SUBTRACTION, MULTIPLICATION)
        name = wanted.get(node.name, node.name)
        while name in taken and node.name not in wanted and not own:
            name = f"{name}_"
        taken.add(name)
        names[node.name] = name

    def renamed(value: Output) -> Output:
        return Output(names.get(value.node, value.node), value.index)

    return replace(
        graph,
        nodes=tuple(
            replace(node, name=names[node.name], inputs=tuple(map(renamed, node.inputs)))
            for node in graph
        ),
        outputs=tuple(map(renamed, graph.outputs)),
    )


def find_centres(model: StoredModel) -> np.ndarray:
    """Return the class centres of a model, (classes, E) float32.

    Raises
    ------
    InterchangeError
        If the model has no head, or a head that does not have one centre for each class.
    """
    found, size = model.head.get("weight"), model.net["embedding_size"]
    if found is None or found.ndim != 2 or found.shape[1] != size:
        shapes = {name: array.shape for name, array in model.head.items()}
        raise InterchangeError(
            f"{model.source}: class centres must be one vector of {size} numbers for each class, "
            f"got {shapes or 'a model without a head'}; export without class centres"
        )
    return np.ascontiguousarray(found, np.float32)


def _with_cosines(symbol: mx.sym.Symbol, centres: np.ndarray) -> mx.sym.Symbol:
    """Return a symbol with two outputs: the embeddings and the cosines to the class centres."""
    variable = mx.sym.Variable(CENTRES, shape=centres.shape)
    cosines = mx.sym.FullyConnected(
        data=mx.sym.L2Normalization(symbol, mode="instance", name="fc1n"),
        weight=mx.sym.L2Normalization(variable, mode="instance"),
        no_bias=True,
        num_hidden=len(centres),
        name="fc7",
    )
    return mx.sym.Group([symbol, cosines])


def _load(symbol: str, parameters: str, image_size: tuple[int, int]) -> Embed:
    """Load the files with MXNet; return a function from pixels to embeddings."""
    loaded = mx.sym.load_json(Path(symbol).read_text(encoding="utf-8"))
    arrays = {
        name.partition(":")[2]: array.asnumpy() for name, array in mx.nd.load(parameters).items()
    }
    embedding = loaded.get_internals()[f"{EMBEDDING}_output"]
    return symbol_function(embedding, arrays, image_size)
