# SPDX-License-Identifier: Apache-2.0
"""Change a graph so that its input is that of our networks: RGB, (x - 127.5) / 128 for pixels x.

The original input of the graph is known from scaling nodes at its start, or the user states the
mean and the divisor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from interchange.graph import Graph, Node, Output
from interchange.model import InterchangeError
from normalization import MEAN, STD

Values = float | Sequence[float]


def has_scaling(graph: Graph) -> bool:
    """Return whether the input of a graph is pixels.

    Such a graph begins with scaling nodes, or with a batch normalisation of the pixels, as
    InsightFace's networks with version_input=2 do.
    """
    stripped, scale, shift = _leading_scaling(graph)
    first = stripped.consumers().get(Output(stripped.inputs[0]), [])
    normalised = bool(first) and all(node.op == "batch_norm" for node in first)
    return normalised or bool(np.any(scale != 1) or np.any(shift != 0))


def adapt_input(
    graph: Graph, where: str, *, mean: Values = 0.0, std: Values = 1.0, colour_order: str = "rgb"
) -> Graph:
    """Return a graph that computes the same embeddings from the input of our networks.

    The function removes scaling nodes at the start of the graph.  The input that the remaining
    graph needs is scale * z + shift, where z is the input of our networks.  If the first layers are
    batch normalisations, their statistics absorb scale and shift.  If the first layers are
    convolutions and the shift is 0, their weights absorb the scale.  Both changes are exact.
    Otherwise the function puts a node "affine", which computes scale * z + shift, in front of the
    graph.  Convolution weights cannot absorb a shift, because the convolution pads its input with
    zeros after the shift, so the shift does not apply to the padding.

    Parameters
    ----------
    graph
        Graph whose input is (x - mean) / std for pixels x.
    where
        Path of the file of the graph, for error messages.
    mean, std
        One number, or one number for each input channel.  For a graph with scaling nodes, mean and
        std are usually 0 and 1.
    colour_order
        "rgb" or "bgr": order of the input channels that the graph needs.

    Raises
    ------
    InterchangeError
        If a number is invalid, or if the graph needs BGR and does not begin with convolutions.
    """
    means, stds = (np.asarray(each, np.float64).reshape(-1) for each in (mean, std))
    for name, values in (("mean", means), ("std", stds)):
        if (
            values.size not in (1, 3)
            or not np.isfinite(values).all()
            or (name == "std") & (values <= 0).any()
        ):
            raise InterchangeError(
                f"{where}: {name} must be one number or three, all finite, and std above 0, got "
                f"{values.tolist()}; 127.5 is usual for mean and std"
            )
    if colour_order not in ("rgb", "bgr"):
        raise InterchangeError(
            f"{where}: the colour order must be 'rgb' or 'bgr', got {colour_order!r}; most models "
            "use 'rgb'"
        )
    stripped, scale, shift = _leading_scaling(graph)
    # Pixels are x = STD * z + MEAN, where z is the input of our networks.
    own_scale = scale * STD / stds
    own_shift = scale * (MEAN - means) / stds + shift
    if np.allclose(own_shift, 0, atol=1e-6):
        own_shift = np.zeros(1)
    if colour_order == "bgr":
        # Reverse the order of the channels, from BGR to RGB, in the weights, scale and shift.
        stripped = _reverse_channels(stripped, where)
        own_scale, own_shift = own_scale[::-1], own_shift[::-1]
    if np.allclose(own_scale, 1, rtol=1e-7) and not own_shift.any():
        return stripped
    if not own_shift.any() and (rescaled := _scale_weights(stripped, own_scale)):
        return rescaled
    if renormalised := _scale_norms(stripped, own_scale, own_shift):
        return renormalised
    return _put_in_front(stripped, own_scale, own_shift)


def pixel_function(
    embed: Callable[[np.ndarray], np.ndarray], *, mean: Values, std: Values, colour_order: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that converts RGB pixels to the input of a graph and calls ``embed`` on it.

    ``embed`` computes embeddings (B, E) from the input (B, 3, H, W) of the graph.  The other
    parameters are those of `adapt_input`.
    """
    means, stds = (np.asarray(each, np.float32).reshape(1, -1, 1, 1) for each in (mean, std))

    def compute(pixels: np.ndarray) -> np.ndarray:
        ordered = pixels[:, ::-1] if colour_order == "bgr" else pixels
        return embed((ordered.astype(np.float32) - means) / stds)

    return compute


def _leading_scaling(graph: Graph) -> tuple[Graph, np.ndarray, np.ndarray]:
    """Remove scaling nodes at the start; return the graph and the combined scale and shift."""
    scale, shift = np.ones(1), np.zeros(1)
    users, value = graph.consumers(), Output(graph.inputs[0])
    removed = set()
    while len(users.get(value, ())) == 1 and users[value][0].op in ("affine", "identity"):
        node = users[value][0]
        if node.op == "affine":
            factor = np.asarray(node.attributes["scale"], np.float64).reshape(-1)
            scale, shift = scale * factor, shift * factor + np.asarray(node.attributes["shift"])
        removed.add(node.name)
        value = Output(node.name)
    return graph.without(lambda node: node.name in removed), scale, shift


def _first_convs(graph: Graph) -> list[Node]:
    """Return the nodes that use the input, or [] if one of them cannot absorb a scale.

    All of them must be convolutions without groups, and no other node may share their weights.
    """
    first = graph.consumers().get(Output(graph.inputs[0]), [])
    plain = all(node.op == "conv" and node.attributes["groups"] == 1 for node in first)
    shared = {node.tensors.get("weight") for node in first}
    others = [node for node in graph if node not in first and shared & {*node.tensors.values()}]
    return first if plain and not others else []


def _scale_weights(graph: Graph, scale: np.ndarray) -> Graph | None:
    """Scale the input channels of the first convolutions; None if `_first_convs` finds none."""
    names = {node.tensors["weight"] for node in _first_convs(graph)}
    if not names:
        return None
    factor = scale.reshape(1, -1, 1, 1)
    scaled = {name: (graph.tensors[name] * factor).astype(np.float32) for name in names}
    return replace(graph, tensors={**graph.tensors, **scaled})


def _scale_norms(graph: Graph, scale: np.ndarray, shift: np.ndarray) -> Graph | None:
    """Change the statistics of the first batch normalisations; return None if that is impossible.

    A batch normalisation of scale * x + shift is exactly a batch normalisation of x with other
    statistics if the scale is positive.  The change is impossible if a scale is 0 or negative, if
    another operation uses the input, or if a variance would be negative.
    """
    norms = graph.consumers().get(Output(graph.inputs[0]), [])
    # The statistics cannot absorb the sign of a scale, because a variance has no sign.
    if (scale <= 0).any():
        return None
    if not norms or any(node.op != "batch_norm" for node in norms):
        return None
    changed = {}
    for node in norms:
        mean, variance = (node.tensors[f"running_{name}"] for name in ("mean", "var"))
        epsilon = node.attributes["epsilon"]
        spread = graph.tensors[variance].astype(np.float64) + epsilon
        changed[mean] = ((graph.tensors[mean] - shift) / scale).astype(np.float32)
        changed[variance] = (spread / scale**2 - epsilon).astype(np.float32)
        if (changed[variance] < 0).any():
            return None
    return replace(graph, tensors={**graph.tensors, **changed})


def _reverse_channels(graph: Graph, where: str) -> Graph:
    names = {node.tensors["weight"] for node in _first_convs(graph)}
    if not names:
        raise InterchangeError(
            f"{where}: a graph for BGR images must begin with a convolution, got another operation;"
            " convert the model to RGB"
        )
    swapped = {name: np.ascontiguousarray(graph.tensors[name][:, ::-1]) for name in names}
    return replace(graph, tensors={**graph.tensors, **swapped})


def _put_in_front(graph: Graph, scale: np.ndarray, shift: np.ndarray) -> Graph:
    def plain(values: np.ndarray) -> float | tuple[float, ...]:
        return float(values[0]) if values.size == 1 else tuple(map(float, values))

    data, taken = Output(graph.inputs[0]), {node.name for node in graph}
    name = next(n for n in (f"input_scaling{i or ''}" for i in range(len(taken) + 1))
                if n not in taken)  # fmt: skip
    node = Node(name, "affine", (data,), {}, {"scale": plain(scale), "shift": plain(shift)})
    nodes = [
        replace(each, inputs=tuple(Output(name) if v == data else v for v in each.inputs))
        for each in graph
    ]
    return replace(graph, nodes=(node, *nodes))
