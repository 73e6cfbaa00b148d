# SPDX-License-Identifier: Apache-2.0
"""Texts of symbols: every damage that MXNet does not survive is refused before it loads them."""

from __future__ import annotations

import json

import mxnet as mx
import pytest

from nets.symbol_json import SymbolError, load_symbol, node_attributes


def text(**changes):
    symbol = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="dense")
    content = json.loads(symbol.tojson())
    dense = content["nodes"][-1]
    dense.update(changes.pop("dense", {}))
    return json.dumps({**content, **changes})


def test_a_valid_symbol_is_loaded():
    assert load_symbol(text(), "file").list_outputs() == ["dense_output"]
    node = {"attr": {"a": "1", "b": "2"}, "attrs": {"b": "3"}, "param": {"c": "4"}}
    assert node_attributes(node) == {"a": "1", "b": "3", "c": "4"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is not JSON, got Expecting value"),
        ("[1]", "must be a JSON object with a list of nodes"),
        (text(nodes=[]), "must have 1 to 100,000 nodes, got 0"),
        (text(dense={"name": 3}), "node 3 must have a name and an operator"),
        (text(dense={"inputs": [[3, 0, 0]]}), "node 'dense' must use outputs of earlier nodes"),
        (text(dense={"inputs": [[-1, 0, 0]]}), "node 'dense' must use outputs of earlier nodes"),
        (text(dense={"inputs": [[True, 0, 0]]}), "node 'dense' must use outputs of earlier nodes"),
        (text(dense={"attrs": {"num_hidden": 2}}), "node 'dense' must map names to strings in"),
        (text(dense={"subgraphs": []}), "must contain no subgraph, got control flow"),
        (text(dense={"op": "NoSuchOperator"}), "MXNet cannot load the symbol, got "),
        (text(dense={"attrs": {"num_hidden": "many"}}), "MXNet cannot load the symbol, got "),
        (text(heads=[[9, 0, 0]]), "the heads must be outputs of the 4 nodes"),
        (text(heads=[]), "the heads must be outputs of the 4 nodes"),
        (text(arg_nodes=[99]), "arg_nodes must be indices of the 4 nodes"),
    ],
)
def test_a_damaged_symbol_is_refused_with_one_sentence(content, problem):
    with pytest.raises(SymbolError, match=f"^file: .*{problem}") as caught:
        load_symbol(content, "file")
    assert "\n" not in str(caught.value)
