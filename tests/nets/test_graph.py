# SPDX-License-Identifier: Apache-2.0
"""Networks of symbols: they initialise, learn, hybridize and export as any other network."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from nets import NETS, build_net

SIZE = (8, 6)


def make_symbol():
    y = mx.sym.broadcast_mul(
        mx.sym.Variable("data"), mx.sym.Variable("factor", shape=(1, 3, 1, 1), lr_mult=0)
    )
    y = mx.sym.Convolution(y, kernel=(3, 3), num_filter=4, pad=(1, 1), name="conv")
    y = mx.sym.BatchNorm(y, fix_gamma=True, name="norm")
    y = mx.sym.LeakyReLU(y, act_type="prelu", name="act")
    y = mx.sym.FullyConnected(y, num_hidden=5, name="dense")
    return mx.sym.Flatten(mx.sym.BatchNorm(y.reshape((0, -1, 1, 1)), fix_gamma=False, name="last"))


def make_net():
    net = build_net("graph", SIZE, symbol=make_symbol().tojson(), embedding_size=5)
    net.initialize()
    return net


@pytest.fixture
def images():
    return mx.nd.array(np.random.default_rng(0).normal(size=(7, 3, *SIZE)))


def test_the_parameters_have_the_names_of_the_variables_and_usual_initial_values():
    own = make_net()._collect_params_with_prefix()
    assert {name: parameter.shape for name, parameter in own.items()} == {
        "factor": (1, 3, 1, 1),
        "conv_weight": (4, 3, 3, 3),
        "conv_bias": (4,),
        **{f"norm_{n}": (4,) for n in ("gamma", "beta", "moving_mean", "moving_var")},
        "act_gamma": (4,),
        "dense_weight": (5, 4 * 8 * 6),
        "dense_bias": (5,),
        **{f"last_{n}": (5,) for n in ("gamma", "beta", "moving_mean", "moving_var")},
    }
    fixed = {name for name, parameter in own.items() if parameter.grad_req == "null"}
    assert fixed == {
        *("factor", "norm_gamma"),
        *(f"{norm}_moving_{n}" for norm in ("norm", "last") for n in ("mean", "var")),
    }
    assert (own["act_gamma"].data().asnumpy() == 0.25).all()
    assert (own["last_moving_var"].data().asnumpy() == 1).all()
    assert 0 < own["conv_weight"].data().asnumpy().std() < 1
    assert "graph" not in NETS  # its symbol is no setting for a configuration


def test_the_network_learns_and_hybridized_equals_imperative(images):
    net = make_net()
    plain = net(images).asnumpy()
    net.hybridize(static_alloc=True, static_shape=True)
    np.testing.assert_allclose(net(images).asnumpy(), plain, atol=1e-6)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    target = mx.nd.array(np.random.default_rng(1).normal(size=(7, 5)))
    losses = []
    for _ in range(30):
        with mx.autograd.record():
            loss = ((net(images) - target) ** 2).mean()
        loss.backward()
        trainer.step(1)
        losses.append(loss.asscalar())
    assert losses[-1] < losses[0] / 2
    assert (net._collect_params_with_prefix()["factor"].data().asnumpy() == 1).all()


def test_two_networks_of_one_process_have_parameters_of_their_own(images):
    first, second = make_net(), make_net()
    second._collect_params_with_prefix()["dense_bias"].set_data(mx.nd.ones(5) * 9)
    assert not np.allclose(first(images).asnumpy(), second(images).asnumpy())


@pytest.mark.parametrize(
    ("size", "changes", "problem"),
    [
        (SIZE, {"embedding_size": 6}, r"net.embedding_size: must be that .* \[\(1, 5\)\], got 6"),
        ((0, 6), {}, "net.name: 'graph' needs images of at least 1x1 pixels"),
        ("8", {}, "image_size: must be the height and the width in pixels, got '8'"),
        (SIZE, {"symbol": "{}"}, "net.symbol: a symbol must be a JSON object with a list of nodes"),
    ],
)
def test_a_symbol_that_does_not_fit_is_refused(size, changes, problem):
    settings = {"symbol": make_symbol().tojson(), "embedding_size": 5, **changes}
    with pytest.raises(ValueError, match=problem):
        build_net("graph", size, **settings)
