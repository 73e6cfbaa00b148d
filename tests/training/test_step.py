# SPDX-License-Identifier: Apache-2.0
"""One update against NumPy: gradients, weight decay, clipping, the check for finite values."""

from __future__ import annotations

import math

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon
from mxnet.gluon import nn

from launch.ranks.comm import Comm
from training.step import (
    Model,
    all_finite,
    build_optimizer,
    clip_gradients,
    collect_parameters,
    train_step,
    trained_gradients,
)


class SquaredLength(gluon.HybridBlock):
    """Head whose loss is half the squared distance between the embedding and a scaled label."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.target = self.params.get("target", shape=(1, 2), init=mx.init.One())

    def hybrid_forward(self, F, embedding, label, margin_fraction, target):
        wanted = F.broadcast_mul(F.expand_dims(label * margin_fraction, 1), target)
        return 0.5 * F.sum((embedding - wanted) ** 2, axis=1), F.sum(embedding, axis=1)


def linear_parts(lr=0.1, momentum=0.0, weight_decay=0.0):
    net, head = nn.Dense(2, use_bias=False, in_units=3), SquaredLength()
    net.initialize(mx.init.Normal(1.0))
    head.initialize()
    parameters = collect_parameters(net, head)
    optimizer = build_optimizer(parameters, "sgd", lr, momentum, weight_decay)
    return net, head, parameters, Comm().trainer(parameters, optimizer)


def batch():
    random = np.random.default_rng(0)
    return random.normal(size=(4, 3)).astype(np.float32), np.arange(4, dtype=np.float32)


def by_hand(weight, target, image, label):
    """Return the mean loss and the gradients of weight and target."""
    error = image @ weight.T - label[:, None] * target  # (B, 2)
    loss = 0.5 * (error**2).sum(1).mean()
    return loss, error.T @ image / 4, -(error * label[:, None]).sum(0, keepdims=True) / 4


def test_a_step_follows_the_gradient_of_the_mean_loss():
    net, head, parameters, trainer = linear_parts(lr=0.1)
    image, label = batch()
    weight, target = (parameters[name].data().asnumpy() for name in ("net.weight", "head.target"))
    expected, weight_gradient, target_gradient = by_hand(weight, target, image, label)
    loss, cosine = train_step(
        net, head, trainer, mx.nd.array(image), mx.nd.array(label), mx.nd.ones((1,))
    )
    assert loss.shape == cosine.shape == (1,)
    assert loss.asscalar() == pytest.approx(expected, rel=1e-5)
    assert cosine.asscalar() == pytest.approx((image @ weight.T).sum(1).mean(), abs=1e-5)
    for name, before, gradient in (
        ("net.weight", weight, weight_gradient),
        ("head.target", target, target_gradient),
    ):
        after = parameters[name].data().asnumpy()
        np.testing.assert_allclose(after, before - 0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_a_step_clips_the_gradient_of_the_mean_loss():
    net, head, parameters, trainer = linear_parts(lr=0.1)
    image, label = batch()
    weight, target = (parameters[name].data().asnumpy() for name in ("net.weight", "head.target"))
    _, *gradients = by_hand(weight, target, image, label)
    norm = math.sqrt(sum((g**2).sum() for g in gradients))
    for limit in (norm / 3, norm * 3):
        parameters["net.weight"].set_data(mx.nd.array(weight))
        parameters["head.target"].set_data(mx.nd.array(target))
        arguments = (mx.nd.array(image), mx.nd.array(label), mx.nd.ones((1,)))
        train_step(net, head, trainer, *arguments, clip_norm=limit)
        moved = parameters["net.weight"].data().asnumpy() - weight
        factor = min(1.0, limit / norm)
        np.testing.assert_allclose(moved, -0.1 * factor * gradients[0], rtol=1e-4, atol=1e-6)


def test_margin_fraction_reaches_the_head():
    net, head, _, trainer = linear_parts(lr=1e-9)
    image, label = (mx.nd.array(a) for a in batch())
    losses = [
        train_step(net, head, trainer, image, label, mx.nd.array([w]))[0].asscalar()
        for w in (0.0, 1.0)
    ]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_weight_decay_skips_biases_batchnorm_and_prelu():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(2, 1, in_channels=3), nn.BatchNorm(in_channels=2), nn.PReLU(in_channels=2))
    net.add(nn.Dense(2, in_units=8))
    head = SquaredLength()
    net.initialize(mx.init.One())
    head.initialize()
    net(mx.nd.ones((1, 3, 2, 2)))
    for parameter in net.collect_params().values():
        if parameter.grad_req != "null":
            parameter.set_data(mx.nd.ones(parameter.shape))
    parameters = collect_parameters(net, head)
    assert {name.split(".")[0] for name in parameters} == {"net", "head"}
    optimizer = build_optimizer(parameters, "sgd", lr=1.0, momentum=0.0, weight_decay=0.25)
    trainer = Comm().trainer(parameters, optimizer)
    for parameter in trainer._params:
        if parameter.grad_req != "null":
            parameter.list_grad()[0][:] = 0
            parameter.data()._fresh_grad = True
    trainer.update(1)
    values = {
        name: set(p.data().asnumpy().reshape(-1).tolist())
        for name, p in parameters.items()
        if p.grad_req != "null"
    }
    shrunk = {name for name, value in values.items() if value == {0.75}}
    assert shrunk == {"net.0.weight", "net.3.weight", "head.target"}
    kept = {name for name, value in values.items() if value == {1.0}}
    assert kept == {
        *("net.0.bias", "net.1.gamma", "net.1.beta", "net.2.alpha", "net.3.bias"),
    }
    assert values.keys() == shrunk | kept


@pytest.mark.parametrize("name", ["sgd", "nag"])
def test_the_optimizer_has_the_given_settings(name):
    _, _, parameters, _ = linear_parts()
    optimizer = build_optimizer(parameters, name, lr=0.3, momentum=0.7, weight_decay=0.01)
    assert type(optimizer).__name__.lower() == name
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.wd) == (0.3, 0.7, 0.01)


def many_parameters(count):
    parameters = {}
    for i in range(count):
        parameter = gluon.Parameter(f"p{i:03d}_weight", shape=(1 + i % 3, 2))
        parameter.initialize(mx.init.Zero())
        parameters[f"net.p{i:03d}"] = parameter
    return parameters, Comm().trainer(parameters, mx.optimizer.create("sgd", learning_rate=1.0))


# MXNet's multi_* operators overflow a buffer at more than 200 arrays.
@pytest.mark.parametrize("count", [1, 250])
@pytest.mark.parametrize("share", [0.25, 4.0])
def test_clipping_equals_numpy(count, share):
    parameters, trainer = many_parameters(count)
    random = np.random.default_rng(count)
    gradients = []
    for parameter in parameters.values():
        gradient = random.normal(size=parameter.shape).astype(np.float32)
        parameter.list_grad()[0][:] = mx.nd.array(gradient)
        gradients.append(gradient)
    norm = math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients))
    clip_gradients(trainer, share * norm)
    for parameter, gradient in zip(parameters.values(), gradients):
        np.testing.assert_allclose(
            parameter.list_grad()[0].asnumpy(), gradient * min(1.0, share), rtol=1e-5
        )


def test_clipping_keeps_zero_gradients():
    parameters, trainer = many_parameters(2)
    clip_gradients(trainer, 1.0)
    assert not any(p.list_grad()[0].asnumpy().any() for p in parameters.values())


@pytest.mark.parametrize("count", [1, 100, 101, 250])
def test_all_finite_finds_nan_and_infinity_anywhere(count):
    arrays = [mx.nd.ones((1 + i % 4,)) for i in range(count)]
    assert all_finite(arrays)
    for place in {0, count // 2, count - 1}:
        for value in (float("nan"), float("inf"), -float("inf")):
            arrays[place][-1] = value
            assert not all_finite(arrays), (place, value)
        arrays[place][-1] = 1
    assert all_finite(arrays)


@pytest.mark.parametrize("clip_norm", [0.0, 0.3])
def test_a_second_trainer_for_the_head_changes_no_result(clip_norm):
    image, label = (mx.nd.array(array) for array in batch())
    found = []
    for split in (False, True):
        mx.random.seed(3)
        net, head, parameters, trainer = linear_parts(lr=0.1)
        shard_trainer = None
        if split:
            trainer, shard_trainer = (
                mx.gluon.Trainer(
                    {n: p for n, p in parameters.items() if n.startswith(part)},
                    mx.optimizer.create("sgd", learning_rate=0.1),
                    kvstore=None,
                )
                for part in ("net.", "head.")
            )
        before = parameters["head.target"].data().asnumpy()
        train_step(
            *(net, head, trainer, image, label, mx.nd.ones((1,))),
            clip_norm=clip_norm,
            shard_trainer=shard_trainer,
        )
        found.append({name: p.data().asnumpy() for name, p in parameters.items()})
    assert (found[1]["head.target"] != before).any()
    for name, array in found[0].items():
        np.testing.assert_allclose(found[1][name], array, rtol=1e-5, atol=1e-7)


def test_the_clipped_norm_includes_the_shards_of_other_ranks():
    net, head, parameters, _ = linear_parts(lr=0.1)
    trainers = [
        mx.gluon.Trainer(block.collect_params(), "sgd", kvstore=None) for block in (net, head)
    ]
    for parameter in parameters.values():
        parameter.grad()[:] = 1.0
    of_net, of_shard = (sum(g.size for g in trained_gradients(trainer)) for trainer in trainers)
    # The second rank has a shard of the same size.
    clip_gradients(trainers[0], 1.0, trainers[1], lambda array: array * 2)
    expected = 1 / np.sqrt(of_net + 2 * of_shard)
    for parameter in parameters.values():
        np.testing.assert_allclose(parameter.grad().asnumpy(), expected, rtol=1e-5)


def test_both_trainers_get_the_learning_rate():
    net, head, parameters, trainer = linear_parts(lr=0.1)
    shard_trainer = mx.gluon.Trainer(head.collect_params(), "sgd", kvstore=None)
    Model(net, head, trainer, parameters, shard_trainer).set_learning_rate(0.5)
    assert trainer.learning_rate == shard_trainer.learning_rate == 0.5
