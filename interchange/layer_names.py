# SPDX-License-Identifier: Apache-2.0
"""Fit the tensors of another project's file to one of our networks, by the names of layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from interchange.graph_net import graph_net
from interchange.input_contract import Values, adapt_input
from interchange.model import InterchangeError, StoredModel
from interchange.net_graph import model_graph
from interchange.stored_tensor import StoredTensor, read_float32
from nets import build_net
from normalization import MEAN, STD

BIAS = "embedding.linear.bias"
"""Name of the bias of the last linear layer.  Our networks have no such bias, see `fold_bias`."""


class Layer(NamedTuple):
    """Parameter of one of our networks."""

    name: str
    """Name in our network, for example "stem.conv.weight"."""
    shape: tuple[int, ...]
    optional: bool = False
    """Whether the file may lack the tensor."""


def net_layers(path: str, net: Mapping[str, Any], image_size: tuple[int, int]) -> list[Layer]:
    """Return the parameters of a network, and an optional bias for its last linear layer.

    Our networks lack this bias, but the files of other projects may have it.

    Raises
    ------
    InterchangeError
        If `nets.build_net` refuses the arguments ``net`` or the image size.
    """
    try:
        block = build_net(image_size=image_size, **net)
    except ValueError as error:
        raise InterchangeError(f"{path}: the sizes fit no network: {error}") from None
    layers = [Layer(n, tuple(p.shape)) for n, p in block._collect_params_with_prefix().items()]
    return [*layers, Layer(BIAS, (int(net["embedding_size"]),), optional=True)]


def fit_layers(
    path: str,
    what: str,
    tensors: Mapping[str, StoredTensor],
    names: Mapping[str, Layer],
    adapt_shape: Callable[[Layer, tuple[int, ...]], bool] = lambda layer, shape: False,
) -> dict[str, np.ndarray]:
    """Read the parameters of our network from the tensors of a file.

    Each tensor of the file and each parameter of the network must have a counterpart.

    Parameters
    ----------
    path
        Path of the file, for messages.
    what
        Name of the network in the other project, for messages.
    tensors
        Tensors of the file by name.
    names
        Mapping from the names in the file to the parameters of our network, in forward order.
    adapt_shape
        Function that decides whether a tensor with another shape fits a layer.  The values of a
        tensor that fits are reshaped; a single value is repeated.

    Returns
    -------
    float32 parameters, keyed by their names in our network.

    Raises
    ------
    InterchangeError
        If a tensor is missing, has another shape, has no counterpart, or has invalid values.
    """
    for name, layer in names.items():
        found = tensors.get(name)
        if found is None and layer.optional:
            continue
        if found is None:
            raise InterchangeError(
                f"{path}: does not fit {what}, got no tensor {name!r} of shape {layer.shape}; use "
                "a complete file of this network"
            )
        if found.shape != layer.shape and not adapt_shape(layer, found.shape):
            raise InterchangeError(
                f"{path}: does not fit {what}, whose tensor {name!r} has the shape {layer.shape}, "
                f"got {found.shape}; use a file of this network"
            )
    for name, found in tensors.items():
        if name not in names:
            raise InterchangeError(
                f"{path}: does not fit {what}, which has no layer for a tensor {name[:80]!r}, got "
                f"one of shape {found.shape}; use a file of this network, or export the model to "
                "ONNX and import the ONNX file"
            )
    values = {}
    for name, layer in names.items():
        if name in tensors:
            array = read_float32(path, name, tensors[name])
            if name.endswith("running_var") and (array < 0).any():
                raise InterchangeError(
                    f"{path}: the variances {name!r} must be at least 0, got {array.min():g}; copy "
                    "or download the file again"
                )
            single = array.size == 1 != np.prod(layer.shape)
            shaped = np.full(layer.shape, array.item()) if single else array.reshape(layer.shape)
            values[layer.name] = np.ascontiguousarray(shaped, np.float32)
    return values


def fold_bias(parameters: dict[str, np.ndarray]) -> None:
    """Replace the bias b of the last linear layer by a change of the running mean m, in place.

    The batch normalisation that follows computes ``(W x + b - m) * s + beta``, where ``s`` is gamma
    divided by the standard deviation.  Without b, the running mean ``m - b`` gives exactly the same
    result.
    """
    if BIAS in parameters:
        mean = parameters["embedding.norm.running_mean"].astype(np.float64)
        parameters["embedding.norm.running_mean"] = (mean - parameters.pop(BIAS)).astype(np.float32)


def with_own_input(
    model: StoredModel, *, mean: Values, std: Values, colour_order: str
) -> StoredModel:
    """Return the model that takes the input of our networks instead of (x - mean) / std.

    The input of our networks is (x - 127.5) / 128 for RGB pixels x.  If the network begins with a
    convolution, a different colour order or divisor changes the weights of this convolution.  If
    the network begins with a batch normalisation, a different mean or divisor changes the
    statistics.  These changes are exact.  In other cases, for example for a different mean before a
    convolution, the model becomes the network "graph" (`nets.graph.GraphNet`) with a scale and a
    shift at its start, see `interchange.input_contract.adapt_input`.

    Raises
    ------
    InterchangeError
        If mean, std or colour order is invalid, or if the colour order is "bgr" and the network
        does not begin with a convolution.
    """
    graph = model_graph(model)
    adapted = adapt_input(graph, model.source, mean=mean, std=std, colour_order=colour_order)
    notices = list(model.notices)
    if len(adapted.nodes) == len(graph.nodes):
        parameters = {name: adapted.tensors[name] for name in model.parameters}
        changed = [n for n in parameters if parameters[n] is not graph.tensors[n]]
        if changed:
            notices.append(
                f"the values of {', '.join(changed)} now contain the conversion of images to the "
                f"input of the model, (x - {mean}) / {std} for {colour_order.upper()} pixels x"
            )
        return replace(model, parameters=parameters, notices=tuple(notices))
    net, parameters = graph_net(adapted, model.source, model.image_size)
    notices.append(
        f"the network {model.net['name']} expects the input (x - {mean}) / {std}, and the weights "
        f"cannot be changed for the input (x - {MEAN}) / {STD}; so the import stores the network "
        'as "graph", with a scale and a shift before its first layer'
    )
    return replace(model, net=net, parameters=parameters, notices=tuple(notices))
