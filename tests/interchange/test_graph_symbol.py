# SPDX-License-Identifier: Apache-2.0
"""Every operation of a graph becomes an MXNet operator and is read back with equal attributes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from interchange.graph import Graph, Node, Output
from interchange.graph_symbol import graph_symbol
from interchange.model import InterchangeError
from interchange.mxnet_operators import WRITTEN
from interchange.mxnet_symbol import symbol_graph

WINDOW = {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 0)}
ONE = {
    "conv": {**WINDOW, "dilation": (1, 2), "groups": 1},
    "batch_norm": {"epsilon": 2e-5, "momentum": 0.8, "fixed_scale": False},
    "dense": {},
    "prelu": {},
    **{op: {} for op in ("relu", "sigmoid", "tanh", "softplus", "softsign", "gelu", "exp")},
    **{op: {} for op in ("square", "sqrt", "absolute", "flatten", "identity")},
    "leaky_relu": {"slope": 0.1},
    "elu": {"slope": 0.5},
    "hard_sigmoid": {"alpha": 0.2, "beta": 0.4},
    "clip": {"low": 0.0, "high": 6.0},
    "softmax": {"axis": 1},
    "pool": {**WINDOW, "kind": "average", "ceil_mode": True, "include_padding": False},
    "global_pool": {"kind": "max"},
    "split": {"axis": 2, "parts": 4, "squeeze": False},
    "slice": {"axis": 1, "begin": 1, "end": None},
    "reshape": {"shape": (0, -1, 1, 1)},
    "transpose": {"axes": (0, 2, 3, 1)},
    "squeeze": {"axis": 0},
    "expand_dims": {"axis": 2},
    "sum": {"axis": (2, 3), "keepdims": True},
    "mean": {"axis": 1, "keepdims": False},
    "tile": {"repeats": (1, 2, 1, 1)},
    "l2_normalize": {"over": "channel", "epsilon": 1e-6},
    "dropout": {"rate": 0.4},
}
TWO = {
    **{op: {"broadcast": False} for op in ("add", "multiply", "subtract", "divide")},
    **{op: {"broadcast": True} for op in ("maximum", "minimum")},
    "concat": {"axis": 1},
}
TENSORS = {
    "conv": {"weight": (5, 3, 3, 2), "bias": (5,)},
    "batch_norm": {role: (3,) for role in ("gamma", "beta", "running_mean", "running_var")},
    "dense": {"weight": (5, 48)},
    "prelu": {"slope": (3,)},
}


def one_node(op, attributes, count=1):
    shapes = TENSORS.get(op, {})
    node = Node("node", op, (Output("data"),) * count, {r: f"t_{r}" for r in shapes}, attributes)
    tensors = {f"t_{r}": np.ones(shape, np.float32) for r, shape in shapes.items()}
    return Graph(("data",), (node,), (Output("node"),), tensors, (4, 4))


@pytest.mark.parametrize(("op", "count"), [*((o, 1) for o in ONE), *((o, 2) for o in TWO)])
def test_every_operation_is_read_back(op, count):
    graph = one_node(op, {**ONE, **TWO}[op], count)
    parts = graph_symbol(graph, "file")
    (node,) = symbol_graph(parts.symbol, parts.parameters, "file").nodes
    assert (node.op, dict(node.attributes)) == (op, dict(graph.nodes[0].attributes))
    assert list(node.tensors) == list(graph.nodes[0].tensors)
    known = {name: array.shape for name, array in parts.parameters.items()}
    assert parts.symbol.infer_shape(data=(1, 3, 4, 4), **known)[1]  # MXNet accepts the attributes


def test_the_cases_above_are_the_whole_vocabulary():
    assert {op for op, _ in WRITTEN} == {*ONE, *TWO}


@pytest.mark.parametrize(
    ("scale", "shift", "operators"),
    [
        (1.0, -127.5, ["_minus_scalar"]),
        (2.0, 0.0, ["_mul_scalar"]),
        (0.5, 3.0, ["_mul_scalar", "_plus_scalar"]),
        ((1.0, 2.0, 3.0), -1.0, ["broadcast_mul", "_minus_scalar"]),
        (2.0, (0.0, 1.0, 2.0), ["_mul_scalar", "broadcast_add"]),
        (1.0, 0.0, ["identity"]),
    ],
)
def test_scale_and_shift_become_one_or_two_operators(scale, shift, operators):
    parts = graph_symbol(one_node("affine", {"scale": scale, "shift": shift}), "file")
    ops = [node["op"] for node in json.loads(parts.symbol.tojson())["nodes"]]
    assert [op.replace("_copy", "identity") for op in ops if op != "null"] == operators


def test_an_operation_that_mxnet_lacks_is_refused():
    with pytest.raises(InterchangeError, match="file: MXNet must have the operation of node"):
        graph_symbol(one_node("wavelet", {}), "file")
    with pytest.raises(InterchangeError, match="file: MXNet cannot load the symbol, got"):
        graph_symbol(one_node("mxnet.wavelet", {}), "file")
