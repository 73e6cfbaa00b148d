# SPDX-License-Identifier: Apache-2.0
"""Frozen batch normalisation: statistics keep every bit, and training equals verification."""

import mxnet as mx
import numpy as np
import pytest

import ops
from nets import build_net
from nets.frozen_norm import fix_parameters, freeze_batch_norm, freeze_symbol
from nets.iresnet import IResNet
from tests.nets.steps import images, train_step

SIZE = (32, 32)


def small_mobilefacenet():
    return build_net("mobilefacenet", SIZE, width=0.125, embedding_size=8)


def small_iresnet():
    return IResNet((2, 1, 1, 1), 8, channels=(8, 8, 16, 16), image_size=SIZE)


def make(build, frozen):
    mx.random.seed(1)
    net = build()
    count = freeze_batch_norm(net, lambda name: True) if frozen else 0
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    return net, count


def calibrated(build):
    """Return the parameters of a net whose statistics are those of its training images."""
    net, _ = make(build, frozen=False)
    random = np.random.default_rng(2)
    for key, parameter in net._collect_params_with_prefix().items():
        if key.endswith(("gamma", "beta", "alpha")) and key != "embedding.norm.gamma":
            noise = mx.nd.array(random.uniform(-0.2, 0.2, parameter.shape))
            parameter.set_data(parameter.data() + noise)
    with mx.autograd.train_mode():
        for _ in range(40):
            net(images(8, size=SIZE))
    return {key: p.data() for key, p in net._collect_params_with_prefix().items()}


@pytest.mark.parametrize("build", [small_mobilefacenet, small_iresnet])
def test_training_with_frozen_layers_equals_verification_and_changes_no_statistics(build):
    values, x = calibrated(build), images(4, seed=3, size=SIZE)
    gradients = {}
    for operators in ("plain", "native"):
        ops.use(operators)
        net, count = make(build, frozen=True)
        for key, parameter in net._collect_params_with_prefix().items():
            parameter.set_data(values[key])
        assert count == sum(key.endswith("running_mean") for key in values)
        expected = net(x).asnumpy()
        trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.0}, None)
        for _ in range(2):
            y, gradients[operators] = train_step(net, x)
            tolerance = 1e-5 * np.abs(expected).max()
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=tolerance)
            trainer.step(1)
        for key, parameter in net._collect_params_with_prefix().items():
            if "running" in key or key.endswith(("gamma", "beta")):
                before = values[key].asnumpy()
                assert parameter.data().asnumpy().tobytes() == before.tobytes(), key
        learned = set(gradients[operators])
        assert not any(key.endswith(("gamma", "beta")) for key in learned) and len(learned) > 10
    for key, gradient in gradients["plain"].items():
        scale = np.abs(gradient).max()
        assert np.abs(gradients["native"][key] - gradient).max() <= 1e-3 * scale, key


def test_the_gradient_through_frozen_layers_is_that_of_the_fixed_affine_map():
    ops.use("plain")
    values = calibrated(small_mobilefacenet)
    net, _ = make(small_mobilefacenet, frozen=True)
    for key, parameter in net._collect_params_with_prefix().items():
        parameter.set_data(values[key])
    x = images(2, seed=4, size=SIZE)
    _, gradients = train_step(net, x)
    weight, step = net.embedding.linear.weight, 1e-2
    direction = mx.nd.array(np.random.default_rng(5).normal(size=weight.shape))

    def loss(shift):
        weight.set_data(values["embedding.linear.weight"] + shift * direction)
        y = net(x)
        return (y * mx.nd.arange(y.size).reshape(y.shape) / y.size).sum().asscalar()

    slope = (loss(step) - loss(-step)) / (2 * step)
    expected = (gradients["embedding.linear.weight"] * direction.asnumpy()).sum()
    assert slope == pytest.approx(expected, rel=1e-3)


def foreign_symbol():
    x = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), num_filter=4, stride=(4, 4), name="c")
    x = mx.sym.BatchNorm(x, fix_gamma=False, name="bn0")
    x = mx.sym.FullyConnected(
        mx.sym.LeakyReLU(x, act_type="prelu", name="a"), num_hidden=6, name="d"
    )
    return mx.sym.BatchNorm(x, fix_gamma=True, name="last").tojson()


def test_the_layers_of_a_graph_are_frozen_in_its_symbol():
    symbol = foreign_symbol()
    text, names = freeze_symbol(symbol, lambda name: True)
    parts = ("gamma", "beta", "moving_mean", "moving_var")
    assert names == [f"{layer}_{part}" for layer in ("bn0", "last") for part in parts]
    assert freeze_symbol(text, lambda name: True) == (text, names)
    assert freeze_symbol(symbol, lambda name: name == "bn0_gamma")[1] == names[:4]
    options = {"embedding_size": 6, "image_size": SIZE}
    plain, net = (build_net("graph", symbol=each, **options) for each in (symbol, text))
    fix_parameters(net._collect_params_with_prefix()[name] for name in names)
    random = np.random.default_rng(0)
    for block in (plain, net):
        block.initialize()
    for name, parameter in net._collect_params_with_prefix().items():
        value = mx.nd.array(random.uniform(0.5, 1.5, parameter.shape))
        value = mx.nd.ones_like(value) if name == "last_gamma" else value  # fix_gamma
        parameter.set_data(value)
        plain._collect_params_with_prefix()[name].set_data(value)
    x = images(4, size=SIZE)
    before = {n: p.data().asnumpy() for n, p in net._collect_params_with_prefix().items()}
    expected = plain(x).asnumpy()
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1}, None)
    y, _ = train_step(net, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    trainer.step(1)
    after = {n: p.data().asnumpy() for n, p in net._collect_params_with_prefix().items()}
    fixed = {n for n in before if (before[n] == after[n]).all()}
    assert fixed == set(names)
    with mx.autograd.record():
        assert np.abs(plain(x).asnumpy() - expected).max() > 0.1


def test_only_the_chosen_layers_are_frozen():
    net = small_mobilefacenet()
    assert freeze_batch_norm(net, lambda name: name.startswith("stem.")) == 1
    fixed = {n for n, p in net._collect_params_with_prefix().items() if not p.lr_mult}
    assert fixed == {f"stem.norm.{n}" for n in ("gamma", "beta", "running_mean", "running_var")}
