# SPDX-License-Identifier: Apache-2.0
"""Fused layers in inference against NumPy in float64, and the graphs of a network in inference."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

import ops
from nets import build_net
from nets.blocks import BatchNorm, ConvNorm, ConvNormPReLU, PReLU
from ops import choice
from ops.mode_graphs import FUSED, PLAIN, _mode

EPSILON = 1e-3
TYPES = [(np.float64, 1e-11), (np.float32, 2e-5)]


def normalisation(generator, channels, with_prelu):
    """Return gamma, beta, mean, variance and with PReLU the slope, each (channels,)."""
    values = [
        generator.uniform(0.5, 2, channels),
        generator.normal(size=channels),
        generator.normal(size=channels),
        generator.uniform(0.1, 3, channels),
    ]
    return [*values, generator.uniform(-0.3, 0.6, channels)] if with_prelu else values


def normalised(z, gamma, beta, mean, variance, slope=None):
    sides = (1, -1) + (1,) * (z.ndim - 2)
    gamma, beta, mean, variance = (v.reshape(sides) for v in (gamma, beta, mean, variance))
    y = (z - mean) / np.sqrt(variance + EPSILON) * gamma + beta
    return y if slope is None else np.where(y > 0, y, y * slope.reshape(sides))


def compare(operator, arrays, true, dtype, tolerance, **options):
    found = operator(
        *(mx.nd.array(a, dtype=dtype) for a in arrays), epsilon=EPSILON, **options
    ).asnumpy()
    assert found.shape == true.shape and found.dtype == dtype
    assert np.abs(found - true).max() <= tolerance * max(1.0, np.abs(true).max())


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (2, 3, 5, 5), (4, 33, 7, 7), (1, 2, 20, 9)])
@pytest.mark.parametrize("prelu", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_normalisation_uses_the_running_statistics(shape, prelu, dtype, tolerance):
    generator = np.random.default_rng(0)
    x, values = generator.normal(size=shape), normalisation(generator, shape[1], prelu)
    true = normalised(x, *values)
    compare(mx.nd.face_frozen_norm, [x, *values], true, dtype, tolerance, prelu=prelu)


@pytest.mark.parametrize(
    ("images", "inputs", "outputs", "size"),
    [(1, 1, 1, 1), (2, 5, 7, 3), (3, 64, 13, 7), (1, 33, 64, 14), (2, 8, 128, 20), (1, 16, 8, 56)],
)
@pytest.mark.parametrize("prelu", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_pointwise_convolution(images, inputs, outputs, size, prelu, dtype, tolerance):
    generator = np.random.default_rng(1)
    x = generator.normal(size=(images, inputs, size, size))
    weight = generator.normal(size=(outputs, inputs, 1, 1))
    values = normalisation(generator, outputs, prelu)
    true = normalised(np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x), *values)
    operator = mx.nd.face_frozen_pointwise
    compare(operator, [x, weight, *values], true, dtype, tolerance, prelu=prelu)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    "shape", [(1, 3, 1, 1), (2, 5, 7, 7), (3, 4, 9, 5), (2, 6, 14, 14), (1, 3, 20, 33)]
)
@pytest.mark.parametrize("prelu", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_depthwise_convolution(shape, stride, prelu, dtype, tolerance):
    generator = np.random.default_rng(2)
    channels, height, width = shape[1:]
    x, weight = generator.normal(size=shape), generator.normal(size=(channels, 1, 3, 3))
    values = normalisation(generator, channels, prelu)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    z = sum(
        padded[:, :, r : r + height : stride, c : c + width : stride]
        * weight[:, 0, r, c].reshape(1, -1, 1, 1)
        for r in range(3)
        for c in range(3)
    )
    compare(
        mx.nd.face_frozen_depthwise,
        [x, weight, *values],
        normalised(z, *values),
        dtype,
        tolerance,
        prelu=prelu,
        stride=stride,
    )


def ones(*shape):
    return mx.nd.ones(shape)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda f: f.face_frozen_norm(ones(3), *[ones(3)] * 4, prelu=False, epsilon=1), "x must"),
        (
            lambda f: f.face_frozen_norm(ones(2, 3), *[ones(4)] * 4, prelu=False, epsilon=1),
            r"must be \(C,\), got \(4\)",
        ),
        (
            lambda f: f.face_frozen_pointwise(
                ones(2, 3, 4, 4), ones(5, 2, 1, 1), *[ones(5)] * 4, prelu=False, epsilon=1
            ),
            r"weight must be \(outputs, C, 1, 1\)",
        ),
        (
            lambda f: f.face_frozen_depthwise(
                ones(2, 3, 4, 4), ones(3, 1, 5, 5), *[ones(3)] * 4, prelu=False, epsilon=1, stride=1
            ),
            r"weight must be \(C, 1, 3, 3\)",
        ),
        (lambda f: f.face_frozen_norm(ones(2, 3), *[ones(3)] * 4, prelu=False), "epsilon is requ"),
    ],
)
def test_wrong_shapes_are_refused(call, says):
    with pytest.raises(mx.base.MXNetError, match=says):
        call(mx.nd).wait_to_read()


@pytest.mark.parametrize(
    ("block", "operators"),
    [
        (PReLU(8), ["face_prelu"]),
        (BatchNorm(8), ["face_frozen_norm"]),
        (ConvNorm(8, 16, 1), ["face_frozen_pointwise"]),
        (ConvNormPReLU(8, 16, 1), ["face_frozen_pointwise"]),
        (ConvNormPReLU(8, 8, 3, 2, 1, groups=8), ["face_frozen_depthwise"]),
        (ConvNorm(8, 8, 3, 1, 1, groups=8), ["face_frozen_depthwise"]),
        (ConvNormPReLU(8, 16, 3, 2, 1), ["Convolution", "face_frozen_norm"]),
        (ConvNorm(8, 8, 7, groups=8), ["Convolution", "face_frozen_norm"]),
        (ConvNorm(8, 16, 1, 2), ["Convolution", "face_frozen_norm"]),
        (ConvNorm(8, 8, 3, 1, 0, groups=8), ["Convolution", "face_frozen_norm"]),
    ],
)
def test_a_layer_has_a_fused_operator_only_inside_fused_inference(block, operators):
    data = mx.sym.var("data")

    def names():
        nodes = json.loads(block(data).tojson())["nodes"]
        return [node["op"] for node in nodes if node["op"] != "null"]

    assert not [name for name in names() if "face" in name]
    with choice.fused_inference():
        assert names() == operators
    assert not [name for name in names() if "face" in name]


@pytest.mark.parametrize(
    "name", ["mobilefacenet", "gluonfr_mobilefacenet", "mobilenet_v1", "mnasnet", "vargfacenet"]
)
def test_a_net_has_the_embeddings_of_the_plain_operators(name):
    net = build_net(name, width=0.125, embedding_size=16)
    net.initialize()
    generator = np.random.default_rng(0)
    for parameter in net.collect_params().values():
        if parameter.name.endswith(("running_mean", "beta")):
            parameter.set_data(mx.nd.array(generator.normal(0, 0.2, parameter.shape)))
        if parameter.name.endswith(("running_var", "gamma", "alpha")):
            parameter.set_data(mx.nd.array(generator.uniform(0.3, 1.5, parameter.shape)))
    images = mx.nd.array(generator.normal(size=(3, 3, 112, 112)))
    plain = net(images).asnumpy()
    net.hybridize(static_alloc=True, static_shape=True)
    fused = net(images).asnumpy()
    assert "face_frozen" in net._cached_graph[1].tojson()
    np.testing.assert_allclose(fused, plain, rtol=0, atol=2e-5 * np.abs(plain).max())
    ops.use("plain")
    np.testing.assert_array_equal(net(images).asnumpy(), plain)
    assert "face_" not in net._cached_graph[1].tojson()


def small_net_and_images():
    """Return a hybridized network and two images."""
    net = build_net("mobilefacenet", width=0.125, embedding_size=16)
    net.initialize()
    net.hybridize()
    return net, mx.nd.random.normal(shape=(2, 3, 112, 112))


def test_a_recorded_call_in_inference_uses_operators_with_gradients():
    net, images = small_net_and_images()
    images.attach_grad()
    embeddings = net(images)
    with mx.autograd.record(train_mode=False):
        recorded = net(images)
    recorded.backward()
    assert list(net._graphs) == [FUSED, PLAIN]
    np.testing.assert_allclose(recorded.asnumpy(), embeddings.asnumpy(), atol=1e-5)


@pytest.mark.parametrize(("dtype", "mode"), [("float64", FUSED), ("float16", PLAIN)])
def test_only_float32_and_float64_use_the_fused_operators(dtype, mode):
    assert _mode(mx.nd.ones((1, 4, 3, 3), dtype=dtype), gpu=False) == mode


def test_an_export_after_fused_inference_alone_contains_no_fused_operator(tmp_path):
    net, images = small_net_and_images()
    expected = net(images).asnumpy()
    net.export(str(tmp_path / "net"))
    assert "face_" not in (tmp_path / "net-symbol.json").read_text()
    loaded = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    )
    np.testing.assert_allclose(loaded(images).asnumpy(), expected, atol=1e-5)
    assert (net(images).asnumpy() == expected).all()
    assert [graph[-1] for graph in net._graphs.values()] == [False, False]  # both for a CPU


def test_a_failed_call_after_a_move_leaves_the_next_call_in_order(monkeypatch):
    net, images = small_net_and_images()
    expected = net(images).asnumpy()
    with monkeypatch.context() as context:
        context.setattr(choice, "for_gpu", lambda: True)
        context.setattr(net, "_build_cache", lambda *_: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                net(images)
    np.testing.assert_array_equal(net(images).asnumpy(), expected)
