# SPDX-License-Identifier: Apache-2.0
"""Fused layers against MXNet operators in float64, and the choice of the operator."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

import ops
from nets.blocks import ConvNorm, ConvNormPReLU

STATISTICS = {"epsilon": 1e-5, "momentum": 0.9}
SHAPES = [
    (2, 3, 5, 5),
    (4, 16, 7, 7),
    (3, 33, 14, 14),
    (1, 64, 1, 1),
    (5, 2, 20, 9),
    (2, 8, 56, 56),
]


def run(function, arrays, seed=9):
    """Return the output of a function and its gradients for a random output gradient."""
    arrays = [mx.nd.array(a, dtype=a.dtype) for a in arrays]
    for array in arrays:
        array.attach_grad()
    with mx.autograd.record():
        y = function(*arrays)
    generator = np.random.default_rng(seed)
    y.backward(mx.nd.array(generator.normal(size=y.shape), dtype=y.dtype))
    return [y.asnumpy(), *(a.grad.asnumpy() for a in arrays)]


def prelu(x, slope):
    # MXNet's LeakyReLU and BatchNorm use float32 internally, so compute it from other operators.
    return mx.nd.where(x > 0, x, mx.nd.broadcast_mul(x, slope.reshape((1, -1, 1, 1))))


def near(ours, true, tolerance):
    for a, b in zip(ours, true, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * max(1.0, np.abs(b).max())


def away_from_zero(x):
    """Return x without values so near 0 that rounding could change their sign."""
    return np.where(np.abs(x) < 1e-3, 1e-3, x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_prelu_matches_mxnet(shape, dtype, tolerance):
    generator = np.random.default_rng(0)
    x = away_from_zero(generator.normal(size=shape))
    slope = generator.uniform(-0.3, 0.6, shape[1])
    ours = run(mx.nd.face_prelu, [x.astype(dtype), slope.astype(dtype)])
    near(ours, run(prelu, [x, slope]), tolerance)


def fresh_statistics(x):
    channels, dtype = x.shape[1], x.dtype
    return mx.nd.zeros(channels, dtype=dtype), mx.nd.ones(channels, dtype=dtype)


def norm(with_prelu):
    """Return a reference and the fused batch normalisation, and a dict of their statistics."""
    statistics = {}

    def theirs(x, gamma, beta, *slope):
        mean, variance = fresh_statistics(x)
        axes = (0, 2, 3)
        centre = x.mean(axis=axes, keepdims=True)
        spread = ((x - centre) ** 2).mean(axis=axes, keepdims=True)
        z = (x - centre) / mx.nd.sqrt(spread + STATISTICS["epsilon"])
        z = z * gamma.reshape((1, -1, 1, 1)) + beta.reshape((1, -1, 1, 1))
        momentum = STATISTICS["momentum"]
        with mx.autograd.pause():
            mean = momentum * mean + (1 - momentum) * centre.reshape(-1)
            variance = momentum * variance + (1 - momentum) * spread.reshape(-1)
        statistics["theirs"] = [mean.asnumpy(), variance.asnumpy()]
        return prelu(z, slope[0]) if slope else z

    def ours(x, gamma, beta, *slope):
        mean, variance = fresh_statistics(x)
        y, _, _ = mx.nd.face_batch_norm(
            x, gamma, beta, mean, variance, *slope, prelu=with_prelu, **STATISTICS
        )
        y.wait_to_read()
        statistics["ours"] = [mean.asnumpy(), variance.asnumpy()]
        return y

    return theirs, ours, statistics


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] * s[2] * s[3] > 1])
@pytest.mark.parametrize("with_prelu", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 2e-5)])
def test_batch_norm_matches_mxnet(shape, with_prelu, dtype, tolerance):
    generator = np.random.default_rng(1)
    x = generator.normal(size=shape) * 3 + 5  # far from 0: plain sums of squares would cancel
    values = [x, generator.uniform(0.5, 2, shape[1]), generator.normal(size=shape[1])]
    if with_prelu:
        values.append(generator.uniform(-0.3, 0.6, shape[1]))
    theirs, ours, statistics = norm(with_prelu)
    true = run(theirs, values)
    if with_prelu and dtype == np.float32 and np.abs(true[0]).min() < 1e-5:
        values[2] = values[2] + 0.01  # rounding must not change a sign
        true = run(theirs, values)
    found = run(ours, [a.astype(dtype) for a in values])
    near(found[:1] + found[2:], true[:1] + true[2:], tolerance * 10)
    # In float32 a few values near 0 may change sign and get the other slope.
    differences = np.abs(found[1] - true[1]) / max(1.0, np.abs(true[1]).max())
    assert (differences > tolerance).mean() <= (0 if dtype == np.float64 else 1e-4)
    near(statistics["ours"], statistics["theirs"], tolerance)


@pytest.mark.parametrize(
    ("images", "inputs", "outputs", "size"),
    [(1, 1, 1, 1), (2, 5, 7, 3), (3, 64, 13, 7), (2, 33, 64, 14), (2, 8, 128, 20), (1, 16, 8, 56)],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-11), (np.float32, 1e-5)])
def test_pointwise_convolution_matches_mxnet(images, inputs, outputs, size, dtype, tolerance):
    generator = np.random.default_rng(2)
    x = generator.normal(size=(images, inputs, size, size))
    weight = generator.normal(size=(outputs, inputs, 1, 1))

    def theirs(x, weight):
        flat = mx.nd.reshape(x, (images, inputs, -1))
        matrix = mx.nd.broadcast_axis(
            mx.nd.reshape(weight, (1, outputs, inputs)), axis=0, size=images
        )
        return mx.nd.batch_dot(matrix, flat).reshape((images, outputs, size, size))

    true = run(theirs, [x, weight])
    near(run(mx.nd.face_pointwise, [x.astype(dtype), weight.astype(dtype)]), true, tolerance)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "shape",
    [(2, 3, 1, 1), (2, 5, 7, 7), (3, 4, 9, 5), (2, 6, 14, 14), (1, 3, 20, 33), (2, 4, 56, 56)],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 3e-5)])
def test_depthwise_convolution_with_norm_and_prelu_matches_mxnet(shape, stride, dtype, tolerance):
    generator = np.random.default_rng(3)
    channels = shape[1]
    values = [
        generator.normal(size=shape) + 0.5,
        generator.normal(size=(channels, 1, 3, 3)),
        generator.uniform(0.5, 2, channels),
        generator.normal(size=channels),
        generator.uniform(-0.3, 0.6, channels),
    ]
    height, width = (-(-size // stride) for size in shape[2:])
    if shape[0] * height * width < 3:
        values[0] = generator.normal(size=(5, *shape[1:]))
    theirs_norm, _, _ = norm(True)

    def theirs(x, weight, gamma, beta, slope):
        padded = mx.nd.pad(x, mode="constant", pad_width=(0, 0, 0, 0, 1, 1, 1, 1))
        z = 0
        for r in range(3):
            for c in range(3):
                part = padded[:, :, r : r + x.shape[2] : stride, c : c + x.shape[3] : stride]
                z = z + part * weight[:, 0, r, c].reshape((1, -1, 1, 1))
        return theirs_norm(z, gamma, beta, slope)

    def ours(x, weight, gamma, beta, slope):
        mean, variance = fresh_statistics(x)
        return mx.nd.face_depthwise_norm(
            x, weight, gamma, beta, mean, variance, slope, stride=stride, **STATISTICS
        )[0]

    true, found = run(theirs, values), run(ours, [a.astype(dtype) for a in values])
    assert found[0].shape == (values[0].shape[0], channels, height, width)
    near(found[:1] + found[2:], true[:1] + true[2:], tolerance * 10)
    differences = np.abs(found[1] - true[1]) / max(1.0, np.abs(true[1]).max())
    assert (differences > tolerance * 10).mean() <= (0 if dtype == np.float64 else 1e-3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda f: f.face_prelu(f.ones((2, 3, 4, 4)), f.ones((4,))), "x must be"),
        (lambda f: f.face_pointwise(f.ones((2, 3, 4, 4)), f.ones((4, 2, 1, 1))), "x must be"),
        (
            lambda f: f.face_margin_softmax(
                f.ones((2, 3)), f.ones((4, 5)), f.ones(2), f.ones(2), f.ones(2), scale=1.0
            ),
            "embedding must be",
        ),
        (lambda f: f.face_prelu(f.ones((2, 3), dtype="int32"), f.ones((3,))), "float32 or float64"),
    ],
)
def test_wrong_shapes_and_types_are_refused(call, says):
    with pytest.raises(mx.base.MXNetError, match=says):
        call(mx.nd).wait_to_read()


def traced(block, training=True):
    """Return the operators of a block's graph in order."""
    with mx.autograd.record(train_mode=training):
        nodes = json.loads(block(mx.sym.var("data")).tojson())["nodes"]
    return [node["op"] for node in nodes if node["op"] != "null"]


@pytest.mark.parametrize(
    ("shape", "groups", "operators"),
    [
        ((8, 16, 1, 1, 0), 1, ["face_pointwise", "face_batch_norm"]),
        ((8, 16, 1, 2, 0), 1, ["Convolution", "face_batch_norm"]),
        ((8, 16, 1, 1, 1), 1, ["Convolution", "face_batch_norm"]),
        ((8, 16, 1, 1, 0), 4, ["Convolution", "face_batch_norm"]),
        ((8, 16, 3, 1, 1), 1, ["Convolution", "face_batch_norm"]),
        ((8, 8, 3, 1, 1), 8, ["face_depthwise_norm"]),
        ((8, 8, 3, 2, 1), 8, ["face_depthwise_norm"]),
        ((8, 8, 3, 1, 0), 8, ["Convolution", "face_batch_norm"]),
        ((8, 8, 5, 1, 1), 8, ["Convolution", "face_batch_norm"]),
        ((8, 16, 3, 1, 1), 8, ["Convolution", "face_batch_norm"]),
        ((8, 8, 3, 1, 1), 4, ["Convolution", "face_batch_norm"]),
    ],
)
def test_the_shape_of_a_convolution_determines_its_operator(shape, groups, operators):
    linear = ["Convolution", "face_batch_norm"] if len(operators) == 1 else operators
    assert traced(ConvNorm(*shape, groups=groups)) == linear
    block = ConvNormPReLU(*shape, groups=groups)
    assert traced(block) == operators
    plain = traced(block, training=False)
    assert plain[:2] == ["Convolution", "BatchNorm"]
    assert traced(ConvNormPReLU(*shape, groups=groups, fused=False)) == plain
    ops.use("plain")
    assert traced(block) == plain


def test_the_stride_reaches_the_operator():
    block = ConvNormPReLU(8, 8, 3, 2, 1, groups=8)
    block.initialize()
    with mx.autograd.record():
        assert block(mx.nd.ones((2, 8, 6, 6))).shape == (2, 8, 3, 3)
