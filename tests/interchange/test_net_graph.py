# SPDX-License-Identifier: Apache-2.0
"""Our networks as graphs: plain operations, tensors by the names of checkpoints."""

from __future__ import annotations

import numpy as np

from interchange.net_graph import net_graph
from nets import build_net


def test_a_net_becomes_plain_operations_with_its_parameter_names():
    net = build_net("mobilefacenet", (16, 24), width=0.125, embedding_size=4)
    names = {name: p.shape for name, p in net._collect_params_with_prefix().items()}
    graph = net_graph(net, (16, 24))
    assert {name: array.shape for name, array in graph.tensors.items()} == names
    assert sum(array.strides != (0,) * array.ndim for array in graph.tensors.values()) == 0
    assert {node.op for node in graph} == {"conv", "batch_norm", "prelu", "add", "dense"}
    assert [node.name for node in graph][-2:] == ["embedding_linear", "embedding_norm"]
    assert graph.image_size == (16, 24) and graph.outputs[0].node == "embedding_norm"
    values = {name: np.full(shape, 2, np.float32) for name, shape in names.items()}
    assert (net_graph(net, (16, 24), values).tensors["stem.conv.weight"] == 2).all()


def test_the_dropout_of_a_net_is_kept():
    graph = net_graph(build_net("iresnet18", (16, 16), dropout=0.4, embedding_size=4), (16, 16))
    rates = [node.attributes["rate"] for node in graph if node.op == "dropout"]
    assert rates == [0.4]
