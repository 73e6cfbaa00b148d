# SPDX-License-Identifier: Apache-2.0
"""Numbers of axes of the values of a graph."""

from __future__ import annotations

import numpy as np

from interchange.graph import Graph, Node, Output
from interchange.ranks import axes_of, value_ranks


def rank_of(op, before=4, **attributes):
    """Return the rank of the output of an operation on a constant."""
    nodes = (
        Node("value", "constant", (), {"value": "value"}),
        Node("out", op, (Output("value"),), {}, attributes),
    )
    graph = Graph(("data",), nodes, (Output("out"),), {"value": np.zeros((1,) * before)})
    return value_ranks(graph)[Output("out")]


def test_operations_that_change_the_number_of_axes():
    assert rank_of("flatten") == rank_of("dense") == 2
    assert rank_of("reshape", shape=(0, -1, 1)) == 3
    assert rank_of("expand_dims", 2, axis=1) == 3
    assert rank_of("squeeze", 4, axis=(2, 3)) == 2
    assert rank_of("mean", 4, axis=(2, 3), keepdims=False) == 2
    assert rank_of("mean", 4, axis=(2, 3), keepdims=True) == 4
    assert rank_of("mxnet.max", 4, axis="(1, 2)", keepdims="False") == 2
    assert rank_of("mxnet.norm", 4, axis="1", keepdims="True") == 4
    assert rank_of("relu", 3) == 3


def test_every_output_of_a_split_has_a_rank():
    node = Node("parts", "split", (Output("data"),), {}, {"axis": 1, "parts": 3, "squeeze": True})
    ranks = value_ranks(Graph(("data",), (node,), (Output("parts"),), {}))
    assert [ranks[Output("parts", index)] for index in range(3)] == [3, 3, 3]


def test_axes_count_from_the_end_and_none_means_all():
    assert axes_of(-1, 4) == [3]
    assert axes_of((0, -2), 3) == [0, 1]
    assert axes_of(None, 2) == axes_of((), 2) == [0, 1]
