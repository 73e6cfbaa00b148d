# SPDX-License-Identifier: Apache-2.0
"""Every operator computes the same in MXNet, written as ONNX, and read back from ONNX."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import onnxruntime
import pytest

from interchange.graph_symbol import graph_symbol
from interchange.mxnet_symbol import symbol_graph
from interchange.onnx_export import OnnxSettings, build_onnx
from interchange.onnx_graph import onnx_graph

BATCH, SIZE = 3, (6, 5)
S = mx.sym
DATA = S.var("data")


def features(channels=4):
    """Feature maps (B, channels, 6, 5) from the images."""
    weights = {"num_filter": channels, "kernel": (3, 3), "pad": (1, 1)}
    return S.Convolution(DATA, **weights)


def vectors(units=6):
    return S.FullyConnected(DATA, num_hidden=units)


def tokens():
    """Sequences (B, 30, 4)."""
    return S.transpose(S.reshape(features(), shape=(0, 0, -1)), axes=(0, 2, 1))


def positive():
    return S.exp(features() * 0.1)


CASES = {
    "conv": lambda: S.Convolution(
        features(), num_filter=6, kernel=(3, 2), stride=(2, 1), pad=(1, 0), num_group=2
    ),
    "dilated conv": lambda: S.Convolution(
        features(), num_filter=2, kernel=(3, 3), dilate=(2, 2), no_bias=True
    ),
    "batch_norm": lambda: S.BatchNorm(features(), fix_gamma=False, eps=2e-5, name="norm"),
    "batch_norm with fixed gamma": lambda: S.BatchNorm(features(), fix_gamma=True, name="norm"),
    "batch_norm of vectors": lambda: S.BatchNorm(vectors(), fix_gamma=False, name="norm"),
    "prelu": lambda: S.LeakyReLU(features(), act_type="prelu", name="act"),
    "prelu of vectors": lambda: S.LeakyReLU(vectors(), act_type="prelu", name="act"),
    "leaky_relu": lambda: S.LeakyReLU(features(), act_type="leaky", slope=0.2),
    "elu": lambda: S.LeakyReLU(features(), act_type="elu", slope=0.7),
    "gelu": lambda: S.LeakyReLU(features(), act_type="gelu"),
    **{
        kind: lambda kind=kind: S.Activation(features(), act_type=kind)
        for kind in ("relu", "sigmoid", "tanh", "softrelu", "softsign")
    },
    "relu6": lambda: S.clip(features() * 5, a_min=0, a_max=6),
    "hard swish": lambda: features() * S.clip(features() + 3, a_min=0, a_max=6) / 6,
    "hard_sigmoid": lambda: S.hard_sigmoid(features(), alpha=0.3, beta=0.4),
    "dense": lambda: S.FullyConnected(features(), num_hidden=5),
    "dense without bias": lambda: S.FullyConnected(vectors(), num_hidden=5, no_bias=True),
    "dense on the last axis": lambda: S.FullyConnected(tokens(), num_hidden=5, flatten=False),
    "max pool": lambda: S.Pooling(features(), kernel=(3, 3), stride=(2, 2), pool_type="max"),
    "max pool, ceil": lambda: S.Pooling(
        features(), kernel=(3, 3), stride=(2, 2), pool_type="max", pooling_convention="full"
    ),
    "average pool": lambda: S.Pooling(
        features(), kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="avg"
    ),
    "average pool without padding": lambda: S.Pooling(
        features(),
        kernel=(3, 3),
        stride=(2, 2),
        pad=(1, 1),
        pool_type="avg",
        count_include_pad=False,
    ),
    "average pool, ceil": lambda: S.Pooling(
        features(), kernel=(2, 2), stride=(2, 2), pool_type="avg", pooling_convention="full"
    ),
    "average pool, ceil, padding": lambda: S.Pooling(
        features(),
        kernel=(3, 3),
        stride=(2, 2),
        pad=(1, 1),
        pool_type="avg",
        pooling_convention="full",
    ),
    "global max pool": lambda: S.Pooling(features(), kernel=(1, 1), global_pool=True),
    "global average pool": lambda: S.Pooling(
        features(), kernel=(1, 1), global_pool=True, pool_type="avg"
    ),
    "global sum pool": lambda: S.Pooling(
        features(), kernel=(1, 1), global_pool=True, pool_type="sum"
    ),
    "adaptive average pool": lambda: S.contrib.AdaptiveAvgPooling2D(features(), output_size=1),
    "add": lambda: features() + S.tanh(features()),
    "add of three": lambda: S.add_n(features(), S.tanh(features()), S.sigmoid(features())),
    "broadcast mul": lambda: S.broadcast_mul(
        features(), S.Pooling(features(), kernel=(1, 1), global_pool=True, pool_type="avg")
    ),
    "broadcast sub": lambda: S.broadcast_sub(features(), S.mean(features(), 1, keepdims=True)),
    "broadcast div": lambda: S.broadcast_div(features(), S.sum(positive(), 1, keepdims=True)),
    "constant": lambda: S.broadcast_add(features(), S.var("offset", shape=(1, 4, 6, 5))),
    "numbers": lambda: (1 - (features() * 2 + 3 - 0.5) / 4),
    "number divided": lambda: 2 / (positive() + 1),
    "power": lambda: positive() ** 1.7,
    "maximum of a number": lambda: S.maximum(features(), 0.1),
    "concat": lambda: S.concat(features(), features(2), dim=1),
    "split": lambda: S.concat(*list(S.split(features(), num_outputs=2, axis=1))[::-1], dim=1),
    "slice_axis": lambda: S.slice_axis(features(), axis=1, begin=1, end=3),
    "slice_axis to the end": lambda: S.slice_axis(features(), axis=2, begin=-2, end=None),
    "reshape": lambda: S.reshape(features(), shape=(0, 2, -1, 5)),
    "reshape of vectors": lambda: S.reshape(vectors(), shape=(0, -1, 1, 1)),
    "transpose": lambda: S.transpose(features(), axes=(0, 3, 1, 2)),
    "expand_dims": lambda: S.squeeze(S.expand_dims(features(), axis=2), axis=2),
    "tile": lambda: S.tile(S.mean(features(), 1, keepdims=True), reps=(1, 3, 1, 1)),
    "L2Normalization": lambda: S.L2Normalization(features()),
    "L2Normalization of channels": lambda: S.L2Normalization(features(), mode="channel"),
    "L2Normalization of maps": lambda: S.L2Normalization(features(), mode="spatial"),
    "softmax": lambda: S.softmax(tokens(), axis=-1),
    "mean": lambda: S.mean(features(), axis=(2, 3)),
    "sum": lambda: S.sum(features(), axis=1),
    "norm": lambda: S.norm(features(), ord=2, axis=1, keepdims=True),
    "max": lambda: S.max(features(), axis=3),
    "sqrt, square": lambda: S.sqrt(S.square(features()) + 1),
    "abs, exp": lambda: S.exp(-S.abs(features())),
    "batch_dot": lambda: S.batch_dot(tokens(), tokens(), transpose_b=True),
    "matmul": lambda: S.linalg.gemm2(tokens(), tokens(), transpose_a=True, alpha=0.5),
    "LayerNorm": lambda: S.LayerNorm(tokens(), eps=1e-6),
    "UpSampling": lambda: S.UpSampling(features(), scale=2, sample_type="nearest"),
    "BilinearResize2D": lambda: S.contrib.BilinearResize2D(features(), height=13, width=6),
    "Pad": lambda: S.Pad(features(), mode="constant", pad_width=(0, 0, 0, 0, 1, 0, 2, 1)),
    "Dropout, identity": lambda: S.Dropout(S.identity(features())),
}


def with_random_values(symbol, seed):
    generator = np.random.default_rng(seed)
    arguments, _, states = symbol.infer_shape(data=(1, 3, *SIZE))
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    arrays = {
        name: generator.standard_normal(shape).astype(np.float32) * 0.5
        for name, shape in zip(names, [*arguments, *states])
        if name != "data"
    }
    return {
        name: np.abs(array) + 0.5 if name.endswith("_var") else array
        for name, array in arrays.items()
    }


def run_mxnet(symbol, arrays, images):
    states = {name: mx.nd.array(arrays[name]) for name in symbol.list_auxiliary_states()}
    arguments = {
        name: mx.nd.array(images if name == "data" else arrays[name])
        for name in symbol.list_arguments()
    }
    return symbol.bind(mx.cpu(), arguments, aux_states=states).forward()[0].asnumpy()


def run_onnx(model, images):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"data": images})[0]


@pytest.mark.parametrize("name", CASES)
def test_an_operator_survives_onnx(name):
    symbol = S.Flatten(CASES[name]())
    arrays = with_random_values(symbol, seed=len(name))
    images = np.random.default_rng(1).standard_normal((BATCH, 3, *SIZE)).astype(np.float32)
    expected = run_mxnet(symbol, arrays, images)

    graph = symbol_graph(symbol, arrays, "test")
    model = build_onnx(graph, OnnxSettings(SIZE, "plain"), embedding_size=expected.shape[1])
    assert {value.name for value in model.graph.input} == {"data"}
    np.testing.assert_allclose(run_onnx(model, images), expected, rtol=1e-4, atol=1e-5)

    read = onnx_graph(model, "test.onnx", SIZE)
    parts = graph_symbol(read, "test.onnx")
    np.testing.assert_allclose(
        run_mxnet(parts.symbol, parts.parameters, images), expected, rtol=1e-4, atol=1e-5
    )
