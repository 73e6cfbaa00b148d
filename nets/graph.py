# SPDX-License-Identifier: Apache-2.0
"""Network that an MXNet symbol describes, for models of other projects."""

from __future__ import annotations

import json
from typing import Any

import mxnet as mx
from mxnet import gluon, init

from nets.image_size import check_image_size
from nets.symbol_json import load_symbol, node_attributes

NAME = "graph"
"""Name of this network in `nets.build_net`.  ``NETS`` lacks the name, because the symbol is text of
many kilobytes, which comes from a model file and not from a configuration."""
INITIAL_SLOPE = 0.25


class GraphNet(gluon.SymbolBlock):
    """Network of a symbol; its parameters have the names of the symbol's variables.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels.
    symbol
        JSON text of an MXNet symbol with one output, whose input is the variable ``data``.
    embedding_size
        Number of dimensions E of the embedding.

    Inputs
    ------
    x : (B, 3, *image_size) float32
        B images with values of about -1 to 1.

    Outputs
    -------
    (B, E) float32
        Embeddings.

    Raises
    ------
    ValueError
        If the text is not a valid symbol, or if its layers do not fit the sizes.

    Notes
    -----
    Training changes no parameter whose variable has the attribute ``lr_mult`` 0, and no gamma of a
    batch normalisation with ``fix_gamma``.  ``initialize()`` allocates all parameters immediately.
    """

    def __init__(self, image_size: tuple[int, int], *, symbol: str, embedding_size: int) -> None:
        size = check_image_size("graph", image_size, 1, reason="an image has pixels")
        outputs = load_symbol(symbol, "net.symbol")
        shapes = _infer_shapes(outputs, size, embedding_size)
        super().__init__(outputs, mx.sym.var("data", dtype="float32"))
        roles = _roles(symbol)
        for name, parameter in self._params.items():
            parameter.shape = shapes[name]
            parameter.init, trained = roles.get(name, (init.One(), True))
            if not trained:
                parameter.grad_req = "null"
        # Use the full names as keys: SymbolBlock has removed a prefix that all names share.
        self._reg_params = dict(self._params.items())


def _infer_shapes(
    symbol: mx.sym.Symbol, image_size: tuple[int, int], embedding_size: int
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each variable; raise ValueError if the layers do not fit the sizes."""
    arguments, auxiliary = symbol.list_arguments(), symbol.list_auxiliary_states()
    try:
        given, outputs, states = symbol.infer_shape(data=(1, 3, *image_size))
    except (mx.base.MXNetError, ValueError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(
            f"net.symbol: its layers must fit images of {image_size[0]}x{image_size[1]} pixels, got"
            f" {lines[-1] if lines else error}; use images of the size that the model was trained "
            "with"
        ) from None
    if outputs != [(1, embedding_size)]:
        raise ValueError(
            f"net.embedding_size: must be that of the model, whose output for one image has the "
            f"shape {outputs}, got {embedding_size}; leave the setting out"
        )
    return dict(zip([*arguments, *auxiliary], [*given, *states], strict=True))


def _roles(text: str) -> dict[str, tuple[Any, bool]]:
    """Return the initialiser of each parameter, and whether training changes the parameter."""
    nodes = json.loads(text)["nodes"]
    found: dict[str, tuple[Any, bool]] = {}
    for node in nodes:
        attributes = node_attributes(node)
        names = [nodes[entry[0]]["name"] for entry in node["inputs"][1:]]
        fixed = node["op"] == "BatchNorm" and attributes.get("fix_gamma", "True") in ("True", "1")
        for name, initial in zip(names, _initialisers(node["op"], attributes), strict=False):
            found[name] = (initial, not (fixed and name == names[0]))
    for node in nodes:
        if node["op"] == "null" and node_attributes(node).get("__lr_mult__") in ("0", "0.0"):
            found[node["name"]] = (init.One(), False)
    return found


def _initialisers(op: str, attributes: dict[str, str]) -> list[Any]:
    """Return the initialisers of an operator's parameters, in the order of its inputs."""
    if op == "Convolution":  # He et al., arXiv:1502.01852
        return [init.MSRAPrelu("out", INITIAL_SLOPE), init.Zero()]
    if op == "FullyConnected":
        return [init.Xavier("gaussian", "in", 1), init.Zero()]
    if op == "BatchNorm":
        return [init.One(), init.Zero(), init.Zero(), init.One()]
    return [init.Constant(INITIAL_SLOPE)] if op == "LeakyReLU" else []
