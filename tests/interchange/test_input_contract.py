# SPDX-License-Identifier: Apache-2.0
"""Conversion of other inputs to the input of our networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from interchange.graph import Graph, Node, Output
from interchange.input_contract import adapt_input, has_scaling
from interchange.model import InterchangeError

CONV = {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


def make_graph(*steps, conv=CONV):
    """Return a graph of scaling steps (scale, shift) and a convolution with weights 1, 2, 3."""
    nodes, value = [], Output("data")
    for index, (scale, shift) in enumerate(steps):
        values = {"scale": scale, "shift": shift}
        nodes.append(Node(f"step{index}", "affine", (value,), {}, values))
        value = Output(f"step{index}")
    nodes.append(Node("conv", "conv", (value,), {"weight": "w"}, conv))
    weight = np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
    return Graph(("data",), tuple(nodes), (Output("conv"),), {"w": weight})


def weights(graph):
    return graph.tensors["w"].ravel().tolist()


def test_the_scaling_of_our_networks_is_removed():
    graph = make_graph((1.0, -127.5), (1 / 128, 0.0))
    adapted = adapt_input(graph, "file")
    assert [node.op for node in adapted] == ["conv"] and weights(adapted) == [1, 2, 3]
    assert has_scaling(graph) and not has_scaling(adapted)


def test_a_graph_that_begins_with_a_batch_normalisation_takes_pixels():
    graph = make_graph()
    norm = Node("norm", "batch_norm", (Output("data"),), {}, {"epsilon": 1e-5})
    conv = replace(graph.nodes[0], inputs=(Output("norm"),))
    assert has_scaling(replace(graph, nodes=(norm, conv)))


@pytest.mark.parametrize("scale", [-2.0, 0.0])
def test_a_batch_normalisation_absorbs_only_a_positive_scale(scale):
    values = {"epsilon": 1e-5}
    tensors = {"running_mean": "m", "running_var": "v"}
    step = Node("step", "affine", (Output("data"),), {}, {"scale": scale, "shift": 0.5})
    norm = Node("norm", "batch_norm", (Output("step"),), tensors, values)
    arrays = {"m": np.zeros(3, np.float32), "v": np.ones(3, np.float32)}
    adapted = adapt_input(Graph(("data",), (step, norm), (Output("norm"),), arrays), "file")
    front, kept = adapted.nodes
    # Pixels x = 128 z + 127.5 for the input z of our networks.
    assert front.attributes == {"scale": scale * 128, "shift": scale * 127.5 + 0.5}
    assert kept.inputs == (Output(front.name),) and adapted.tensors["v"].tolist() == [1, 1, 1]


def test_another_divisor_is_multiplied_into_the_first_weights():
    for graph, options in [
        (make_graph((1.0, -127.5), (1 / 64, 0.0)), {}),
        (make_graph((1 / 64, -127.5 / 64)), {}),
        (make_graph(), {"mean": 127.5, "std": 64}),
        (make_graph(), {"mean": [127.5] * 3, "std": [64] * 3}),
    ]:
        adapted = adapt_input(graph, "file", **options)
        assert [node.op for node in adapted] == ["conv"] and weights(adapted) == [2, 4, 6]


def test_blue_first_reverses_the_channels_of_the_first_weights():
    options = {"mean": 127.5, "std": [128, 64, 32], "colour_order": "bgr"}
    assert weights(adapt_input(make_graph(), "file", **options)) == [12, 4, 1]


def test_another_mean_becomes_a_node_in_front_of_the_graph():
    adapted = adapt_input(make_graph(), "file", mean=[99.5, 127.5, 127.5], std=128)
    front, conv = adapted.nodes
    assert front.attributes == {"scale": 1.0, "shift": (28 / 128, 0.0, 0.0)}
    assert conv.inputs == (Output(front.name),) and weights(adapted) == [1, 2, 3]
    depthwise = make_graph(conv={**CONV, "groups": 3})
    front = adapt_input(depthwise, "file", mean=127.5, std=64).nodes[0]
    assert front.attributes == {"scale": 2.0, "shift": 0.0}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"std": 0}, r"std above 0, got \[0.0\]"),
        ({"mean": [1, 2]}, r"mean must be one number or three, .* got \[1.0, 2.0\]"),
        ({"mean": float("nan")}, r"mean must be .* got \[nan\]"),
        ({"colour_order": "gbr"}, "must be 'rgb' or 'bgr', got 'gbr'"),
    ],
)
def test_invalid_numbers_are_refused(options, problem):
    with pytest.raises(InterchangeError, match=f"^file: .*{problem}"):
        adapt_input(make_graph(), "file", **options)


def test_blue_first_is_refused_for_a_graph_that_begins_without_convolution():
    with pytest.raises(InterchangeError, match="must begin with a convolution"):
        adapt_input(make_graph(conv={**CONV, "groups": 3}), "file", colour_order="bgr")
