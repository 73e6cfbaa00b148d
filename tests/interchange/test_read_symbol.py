# SPDX-License-Identifier: Apache-2.0
"""Symbols of other projects as stored models: recognised, taken as a graph, or refused."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

from interchange import InterchangeError
from interchange.comparison import model_function
from interchange.read_symbol import read_symbol
from tests.interchange.symbols import (
    EMBEDDING,
    SIZE,
    WIDTH,
    compute,
    edited,
    mobile_symbol,
    normalised,
    pixels,
    random_arrays,
    save,
)


@pytest.fixture(scope="module")
def symbol():
    return mobile_symbol()


@pytest.fixture(scope="module")
def arrays(symbol):
    return random_arrays(symbol)


def require_same(model, expected):
    images = pixels()
    found = normalised(model_function(model)(images))
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(normalised(model.reference(images)) - expected).max() < 1e-5


@pytest.mark.parametrize("fix_gamma", [True, False])
def test_a_mobilefacenet_of_insightface_gives_the_same_embeddings(tmp_path, fix_gamma):
    symbol = mobile_symbol(fix_gamma)
    arrays = random_arrays(symbol)
    save(tmp_path / "m", symbol, {**arrays, "fc7_weight": np.ones((3, EMBEDDING))})
    model = read_symbol(tmp_path / "m")
    assert model.net == {"name": "mobilefacenet", "width": WIDTH, "embedding_size": EMBEDDING}
    assert (model.image_size, model.notices, model.kind) == (SIZE, (), "symbol")
    assert model.head["weight"].shape == (3, EMBEDDING)
    require_same(model, compute(tmp_path / "m", pixels()))


def test_a_symbol_for_training_gives_its_embedding(tmp_path, symbol, arrays):
    label = mx.sym.Variable("softmax_label")
    logits = mx.sym.FullyConnected(symbol, num_hidden=3, name="fc7")
    training = mx.sym.Group([symbol, mx.sym.SoftmaxOutput(logits, label, name="softmax")])
    extra = {"fc7_weight": np.ones((3, EMBEDDING)), "fc7_bias": np.ones(3)}
    save(tmp_path / "m", training, {**arrays, **extra})
    model = read_symbol(tmp_path / "m-0000.params")
    assert model.net["name"] == "mobilefacenet" and len(model.head["weight"]) == 3
    assert model.notices == ("tensors after the embedding are dropped: fc7_bias",)
    require_same(model, compute(tmp_path / "m", pixels()))


def test_old_layouts_of_a_symbol_are_read(tmp_path, symbol, arrays):
    """MXNet 0.x wrote ``param`` and ``attr``, and no nodes for moving statistics."""

    def as_old(content, key):
        for node in content["nodes"]:
            if "attrs" in node:
                node[key] = node.pop("attrs")

    expected = compute(save(tmp_path / "new", symbol, arrays), pixels())
    for key in ("attr", "param"):
        text = edited(symbol, lambda content, key=key: as_old(content, key))
        model = read_symbol(save(tmp_path / key, symbol, arrays, text))
        assert model.net["name"] == "mobilefacenet"
        require_same(model, expected)


def test_a_graph_that_is_none_of_ours_gives_the_same_embeddings(tmp_path):
    def act(y):
        slope = mx.sym.Variable("shared", shape=(1,))
        gate = mx.sym.Activation(
            mx.sym.Pooling(y, global_pool=True, kernel=(1, 1), pool_type="avg"), act_type="sigmoid"
        )
        y = mx.sym.broadcast_mul(y, gate)
        left, right = mx.sym.SliceChannel(y, num_outputs=2)
        y = mx.sym.Concat(right, mx.sym.slice_axis(left, axis=1, begin=0, end=None))
        y = mx.sym.LeakyReLU(y, gamma=slope, act_type="prelu", name="one_slope")
        return mx.sym.Pooling(y, kernel=(2, 2), pool_type="max", pad=(1, 1), stride=(1, 1))

    symbol = mobile_symbol(
        act=lambda y: mx.sym.slice(act(y), begin=(None,) * 4, end=(None, None, 2, 2))
    )
    arrays = random_arrays(symbol)
    save(tmp_path / "m", symbol, arrays)
    model = read_symbol(tmp_path / "m", image_size=SIZE)
    assert model.net["name"] == "graph" and model.net["embedding_size"] == EMBEDDING
    assert model.notices[0].startswith("the network is none of this project's networks")
    assert len(model.parameters["one_slope_alpha"]) > 1
    require_same(model, compute(tmp_path / "m", pixels()))


def test_the_input_that_a_symbol_without_scaling_needs_is_converted(tmp_path):
    symbol = mobile_symbol(scaling=False)
    save(tmp_path / "m", symbol, random_arrays(symbol))
    plain = read_symbol(tmp_path / "m")
    assert plain.notices == (
        "the symbol contains no scaling, so its input is assumed to be (x - 127.5) / 128 "
        "for pixels x",
    )
    images = pixels()
    require_same(plain, compute(tmp_path / "m", (images - 127.5) / 128))
    other = read_symbol(tmp_path / "m", mean=127.5, std=60, colour_order="bgr")
    assert other.net["name"] == "mobilefacenet"
    require_same(other, compute(tmp_path / "m", (images[:, ::-1] - 127.5) / 60))
    values = np.array([110.0, 120.0, 130.0], np.float32).reshape(3, 1, 1)
    graph = read_symbol(tmp_path / "m", mean=[110, 120, 130], std=[50, 60, 70], image_size=SIZE)
    assert graph.net["name"] == "graph"
    require_same(graph, compute(tmp_path / "m", (images - values) / (values - 60)))


def test_parameters_that_do_not_fit_are_refused_by_name(tmp_path, symbol, arrays):
    first = "conv_1_conv2d_weight"

    def refuse(changed, problem):
        save(tmp_path / "m", symbol, changed)
        with pytest.raises(InterchangeError, match=problem):
            read_symbol(tmp_path / "m")

    refuse({n: a for n, a in arrays.items() if n != first}, f"needs its tensors, got no '{first}'")
    refuse(
        {**arrays, "other": np.ones(2)}, r"every tensor must belong .* got 'other' of shape \(2,\)"
    )
    refuse({**arrays, "fc7_weight": np.ones((2, 3))}, "'fc7_weight' must have 16 columns")
    refuse({**arrays, first: arrays[first][:, :, 1:]}, f"'{first}' must have a kernel of")
    refuse({**arrays, first: np.ones(3)}, f"'{first}' must have 4 dimensions")
    gamma = "fc1_gamma"
    refuse({**arrays, gamma: np.ones((2, 2))}, f"'{gamma}' must have the shape")
    refuse({**arrays, gamma: np.ones(7)}, "must have the shape")
    save(tmp_path / "m", symbol, arrays)
    with (tmp_path / "m-0000.params").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(InterchangeError, match="m-0000.params: is truncated: array"):
        read_symbol(tmp_path / "m")
    for name, wanted in (
        ("m-0000.params", "is missing, got m-symbol.json alone"),
        ("m-symbol.json", "is missing, got no such file"),
    ):
        (tmp_path / name).unlink()
        with pytest.raises(InterchangeError, match=wanted):
            read_symbol(tmp_path / "m")


def test_damaged_symbols_are_refused(tmp_path, symbol, arrays):
    prefix = save(tmp_path / "m", symbol, arrays)
    for text, problem in [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (edited(symbol, lambda c: c["nodes"][3].update(inputs=[[99, 0, 0]])), "of earlier nodes"),
        (edited(symbol, lambda c: c["nodes"][3].update(op="Nonsense")), "cannot load the symbol"),
        (json.dumps({"nodes": [{"op": "null", "name": "data", "inputs": []}], "arg_nodes": [0],
                     "heads": [[0, 0, 0]]}), "every tensor must belong|needs|is not|must"),
    ]:  # fmt: skip
        (tmp_path / "m-symbol.json").write_text(text)
        with pytest.raises(InterchangeError, match=problem) as caught:
            read_symbol(prefix)
        assert "\n" not in str(caught.value)
    (tmp_path / "m-symbol.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InterchangeError, match="must be JSON text in UTF-8"):
        read_symbol(prefix)
    two = mx.sym.Group([mx.sym.Variable("data") + 1, mx.sym.Variable("data") * 2])
    save(tmp_path / "two", two, {"x": np.ones(1)})
    with pytest.raises(InterchangeError, match="or an output named fc1_output"):
        read_symbol(tmp_path / "two")
