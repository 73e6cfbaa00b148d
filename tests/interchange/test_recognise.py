# SPDX-License-Identifier: Apache-2.0
"""Recognition of our networks from the structure of a graph, and matching of all tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from interchange.graph import Output
from interchange.model import InterchangeError
from interchange.net_graph import net_graph
from interchange.recognise import recognise
from nets import build_net


def graph_of(name, size, **options):
    return net_graph(build_net(name, size, **options), size)


def anonymous(graph):
    """Return a graph with other names of nodes and tensors, and with swapped inputs of sums."""
    nodes = tuple(
        replace(
            node,
            name=f"n_{node.name}",
            inputs=tuple(
                v if v.node in graph.inputs else Output(f"n_{v.node}", v.index)
                for v in (node.inputs[::-1] if node.op == "add" else node.inputs)
            ),
            tensors={role: f"t_{name}" for role, name in node.tensors.items()},
        )
        for node in graph
    )
    return replace(
        graph,
        nodes=nodes,
        outputs=tuple(Output(f"n_{v.node}", v.index) for v in graph.outputs),
        tensors={f"t_{name}": array for name, array in graph.tensors.items()},
        image_size=None,
    )


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("mobilefacenet", (48, 32), {"width": 0.3, "embedding_size": 24}),
        ("mobilefacenet", (112, 112), {"embedding_size": 128}),
        ("iresnet18", (32, 32), {"embedding_size": 8}),
        ("iresnet100", (16, 16), {"embedding_size": 8}),
        ("iresnet18", (32, 32), {"unit": 1, "se": True, "embedding_size": 8}),
        ("iresnet100", (16, 16), {"units": [1, 2, 1, 1], "width": 0.25, "embedding_size": 8}),
        ("iresnet18", (112, 112), {"output": "GAP", "embedding_size": 8}),
        ("iresnet18", (112, 112), {"output": "GNAP", "embedding_size": 8}),
        ("iresnet18", (16, 16), {"output": "G", "embedding_size": 8}),
        ("mobilefacenet", (112, 112), {"width": 0.125, "output": "Z", "embedding_size": 3136}),
        ("mobilefacenet", (32, 32), {"output": "J", "embedding_size": 8}),
        ("gluonfr_mobilefacenet", (32, 32), {"embedding_size": 8}),
        ("mobilefacenet_y2", (32, 32), {"embedding_size": 8}),
        ("mbf", (32, 32), {"width": 0.5, "embedding_size": 8}),
        ("mbf_large", (32, 32), {"embedding_size": 8}),
        ("mobilenet_v1", (32, 48), {"width": 0.5, "embedding_size": 8}),
        ("mnasnet", (32, 32), {"width": 0.25, "embedding_size": 8}),
        ("densenet121", (32, 32), {"embedding_size": 8}),
        ("densenet161", (112, 112), {"embedding_size": 8}),
        ("vargfacenet", (32, 32), {"se": True, "embedding_size": 8}),
        ("seresnet18", (112, 112), {"embedding_size": 8}),
        ("attention56", (112, 112), {"width": 0.25, "embedding_size": 8}),
    ],
)
def test_every_net_is_recognised_with_its_arguments(name, size, options):
    ours = graph_of(name, size, **options)
    found = recognise(anonymous(ours), "file")
    assert (found.net, found.image_size) == ({"name": name, **options}, size)
    assert {n: a.shape for n, a in found.match.parameters.items()} == {
        n: a.shape for n, a in ours.tensors.items()
    }
    assert found.match.unfolded == ()


def test_an_image_size_that_is_not_square_can_be_stated():
    graph = anonymous(graph_of("iresnet18", (32, 48), embedding_size=8))
    assert recognise(graph, "file", (32, 48)).image_size == (32, 48)
    with pytest.raises(InterchangeError, match="has the shape .* there, got the shape"):
        recognise(graph, "file")


def test_folded_batch_normalisations_are_unfolded():
    ours = graph_of("mobilefacenet", (32, 32), width=0.125, embedding_size=8)
    names, folded = ours.by_name(), anonymous(ours)
    norms = {n.name for n in folded if n.op == "batch_norm" and n.inputs[0].node.endswith("conv")}
    tensors, nodes = dict(folded.tensors), []
    for node in folded.without(lambda node: node.name in norms):
        if node.op == "conv":
            count = len(tensors[node.tensors["weight"]])
            tensors[f"{node.name}_bias"] = np.arange(count, dtype=np.float32)
            node = replace(node, tensors={**node.tensors, "bias": f"{node.name}_bias"})
        nodes.append(node)
    folded = replace(folded, nodes=tuple(nodes), tensors=tensors).pruned()
    match = recognise(folded, "file").match
    assert set(match.unfolded) == {
        names[name.removeprefix("n_")].tensors["gamma"].rpartition(".")[0] for name in norms
    }
    stem = {role: match.parameters[f"stem.norm.{role}"][:3] for role in ("gamma", "beta")}
    np.testing.assert_array_equal(stem["gamma"], 1)
    np.testing.assert_array_equal(stem["beta"], [0, 1, 2])
    np.testing.assert_array_equal(match.parameters["stem.norm.running_mean"], 0)
    np.testing.assert_allclose(match.parameters["stem.norm.running_var"], 1 - 1e-5)
    assert set(match.parameters) == set(ours.tensors)


def test_the_first_layer_that_does_not_fit_is_named():
    ours = anonymous(graph_of("mobilefacenet", (32, 32), width=0.125, embedding_size=8))

    def refuse(graph, problem):
        with pytest.raises(InterchangeError, match=problem):
            recognise(graph, "file")

    def change(name, **fields):
        nodes = tuple(replace(n, **fields) if n.name == name else n for n in ours)
        return replace(ours, nodes=nodes)

    act = ours.by_name()["n_stem_act"]
    refuse(
        change("n_stem_act", op="relu", tensors={}), "'n_stem_act' does not fit: our network has"
    )
    conv = ours.by_name()["n_stem_conv"]
    refuse(
        change("n_stem_conv", attributes={**conv.attributes, "stride": (1, 1)}),
        r"'n_stem_conv' does not fit: our layer has the stride \[2, 2\], got \[1, 1\]",
    )
    weight = "t_stages.1.2.expand.conv.weight"
    small = replace(ours, tensors={**ours.tensors, weight: ours.tensors[weight][:, 1:]})
    refuse(small, f"'{weight}' does not fit: our network has the shape")
    slope = act.tensors["slope"]
    refuse(
        replace(ours, tensors={**ours.tensors, slope: np.ones(3, np.float32)}),
        f"'{slope}' does not fit: .* got the shape",
    )
    refuse(replace(ours, tensors={**ours.tensors, "spare": np.ones(3)}), "got 'spare' of shape")
    refuse(
        replace(ours, outputs=(Output("n_last_act"),)).pruned(),
        "'n_last_act' does not fit: our network has the operation batch_norm there",
    )
    refuse(replace(ours, outputs=(Output("data"),)).pruned(), "a graph without an embedding output")
