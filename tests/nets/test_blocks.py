# SPDX-License-Identifier: Apache-2.0
"""Compares the blocks with float64 NumPy."""

import json

import mxnet as mx
import numpy as np
import pytest

import ops
from nets.blocks import ConvNorm, PReLU
from nets.bottleneck import LinearBottleneck

FORMS = [("plain", "cpu"), ("plain", "gpu"), ("native", "cpu")]


def use_form(choice, device):
    """Select the plain or the fused operators; skip the test without a compiler."""
    try:
        ops.use(choice, device)
    except ops.OperatorError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("form", FORMS, ids="-".join)
@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("shape", [(2, 24, 9, 7), (1, 8, 1, 1), (3, 20, 14, 14)])
def test_prelu_value_and_gradients(shape, hybridize, form):
    use_form(*form)
    random = np.random.RandomState(0)
    x, upstream = random.randn(2, *shape).astype("f4")
    alpha = random.uniform(-0.5, 1.5, shape[1]).astype("f4")  # negative and above 1 as well
    alpha[:2] = 0.0, 1.0
    x[0, 0] = 0.0  # at 0 the slope is that of the negative side
    block = PReLU(shape[1])
    block.initialize()
    block.alpha.set_data(mx.nd.array(alpha))
    if hybridize:
        block.hybridize(static_alloc=True, static_shape=True)
    array = mx.nd.array(x)
    array.attach_grad()
    with mx.autograd.record():
        y = block(array)
    y.backward(mx.nd.array(upstream))

    x, upstream = x.astype("f8"), upstream.astype("f8")
    slope = np.where(x > 0, 1.0, alpha.astype("f8")[None, :, None, None])
    np.testing.assert_allclose(y.asnumpy(), slope * x, atol=1e-6)
    np.testing.assert_allclose(array.grad.asnumpy(), slope * upstream, atol=1e-6)
    d_alpha = (upstream * np.minimum(x, 0)).sum(axis=(0, 2, 3))
    np.testing.assert_allclose(block.alpha.grad().asnumpy(), d_alpha, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(array.asnumpy(), x.astype("f4"))


def relative(values, others):
    return np.abs(values - others).max() / max(1.0, np.abs(others).max())


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
def test_all_forms_of_prelu_agree(hybridize, training):
    random = np.random.default_rng(0)
    x, upstream = random.normal(size=(2, 4, 64, 7, 7))
    alpha = random.uniform(-0.2, 1.2, 64)
    found, operators = [], []
    for form in FORMS:
        use_form(*form)
        block = PReLU(64)
        block.initialize()
        block.alpha.set_data(mx.nd.array(alpha))
        if hybridize:
            block.hybridize(static_alloc=True, static_shape=True)
        array = mx.nd.array(x)
        array.attach_grad()
        with mx.autograd.record(train_mode=training):
            y = block(array)
        y.backward(mx.nd.array(upstream))
        found.append([a.asnumpy() for a in (y, array.grad, block.alpha.grad())])
        with mx.autograd.record(train_mode=training):
            traced = json.loads(block(mx.sym.var("data")).tojson())["nodes"]
        operators.append([node["op"] for node in traced if node["op"] != "null"])
    assert operators[0].count("Convolution") == 2
    assert operators[1] == ["LeakyReLU"]
    assert operators[2] == (["face_prelu"] if training else operators[0])
    for other in found[1:]:
        assert max(map(relative, other, found[0])) <= 1e-6


def test_prelu_on_a_gpu_loads_the_slopes_of_a_checkpoint(tmp_path):
    blocks = []
    for device in ("cpu", "gpu", "cpu"):
        ops.use("plain", device)
        block = PReLU(5, prefix="act_")
        block.initialize()
        if blocks:
            block.load_parameters(str(tmp_path / "slopes"))
        else:
            block.alpha.set_data(mx.nd.arange(5) / 10)
        block.save_parameters(str(tmp_path / "slopes"))
        blocks.append(block)
    x = mx.nd.random.normal(shape=(2, 5, 3, 3))
    assert {tuple(block.alpha.data().asnumpy()) for block in blocks} == {
        tuple(blocks[0].alpha.data().asnumpy())
    }
    assert [list(block.collect_params()) for block in blocks] == [["act_alpha"]] * 3
    np.testing.assert_allclose(blocks[2](x).asnumpy(), blocks[0](x).asnumpy(), atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_prelu_slopes_start_at_a_quarter_and_nan_is_visible(device):
    ops.use("plain", device)
    block = PReLU(8)
    block.initialize()
    np.testing.assert_array_equal(block.alpha.data().asnumpy(), np.full(8, 0.25, "f4"))
    x = mx.nd.zeros((1, 8, 2, 2))
    x[0, 3, 0, 0] = float("nan")
    x[0, 5, 1, 1] = float("inf")
    y = block(x).asnumpy()
    assert not np.isfinite(y[0, 3, 0, 0]) and not np.isfinite(y[0, 5, 1, 1])
    assert np.isfinite(y).sum() == y.size - 2


@pytest.mark.parametrize("groups", [1, 16])
def test_the_initial_variance_of_a_convolution_follows_its_fan_out(groups):
    mx.random.seed(0)
    block = ConvNorm(16, 256, 3, 1, 1, groups=groups)
    block.initialize()
    weight = block.conv.weight.data().asnumpy()
    assert abs(weight.std() / np.sqrt(2 * groups / (9 * 256)) - 1) < 0.05
    assert block.conv.bias is None


@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (8, 2), (16, 1)])
def test_bottleneck_adds_its_input_only_where_shapes_agree(channels, stride):
    block = LinearBottleneck(8, channels, 24, stride)
    block.initialize()
    block.project.norm.gamma.set_data(mx.nd.zeros(channels))  # the branch then outputs 0
    x = mx.nd.random.normal(shape=(2, 8, 6, 6))
    y = block(x)
    assert y.shape == (2, channels, 6 // stride, 6 // stride)
    expected = x if (channels, stride) == (8, 1) else mx.nd.zeros_like(y)
    np.testing.assert_allclose(y.asnumpy(), expected.asnumpy(), atol=1e-6)


def test_the_graph_of_prelu_has_no_operator_that_mxnets_onnx_exporter_folds_wrongly():
    # MXNet 1.9.1 tells `scalar - x` from `x - scalar` by the name of the node, not by its operator.
    block = PReLU(3)
    block.initialize()
    block.hybridize()
    graph = json.loads(block(mx.sym.var("data")).tojson())
    operators = {node["op"] for node in graph["nodes"]}
    assert "Convolution" in operators
    assert not [name for name in operators if name.startswith("_r") and name.endswith("_scalar")]
