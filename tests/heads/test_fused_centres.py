# SPDX-License-Identifier: Apache-2.0
"""Fused update of class centres: equality with the trainer, and the heads that support it."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

import ops
from heads import HEADS, build_head
from heads.fused_centres import PERMITTED

STEP = {"momentum": 0.9, "weight_decay": 5e-4}


@pytest.fixture(autouse=True)
def native_operators():
    ops.use("native")
    yield
    ops.use("plain")


def steps_of_head(fuse, hybridize, native=True, steps=4):
    """Return losses, embeddings' gradients, centres and momentum of a few steps of SGD."""
    ops.use("native" if native else "plain")
    generator = np.random.default_rng(7)
    head = build_head("arcface", 700, 24, m2=0.5, fused_update=STEP if fuse else None)
    head.initialize()
    head.weight.set_data(mx.nd.array(generator.normal(size=(700, 24))))
    if hybridize:
        head.hybridize(static_alloc=True, static_shape=True)
    trainer = mx.gluon.Trainer(
        head.collect_params(), "sgd", {"learning_rate": 0.5, "momentum": 0.9, "wd": 5e-4}, None
    )
    found = []
    for step in range(steps):
        rate = 0.5 / (step + 1)
        trainer.set_learning_rate(rate)
        embedding = mx.nd.array(generator.normal(size=(20, 24)))
        embedding.attach_grad()
        with mx.autograd.record():
            loss, cosine = head(embedding, mx.nd.array(generator.integers(0, 700, 20)))
        loss.backward()
        trainer.update(20)
        if fuse:
            head.update(mx.nd.array([rate]))
        found += [loss, cosine, embedding.grad]
    momentum = head.momentum["weight"] if fuse else trainer._updaters[0].states[0]
    return [a.asnumpy() for a in (*found, head.weight.data(), momentum)]


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("native", [False, True], ids=["plain", "native"])
def test_the_fused_update_equals_that_of_the_trainer(hybridize, native):
    ours = steps_of_head(True, hybridize)
    for mine, theirs in zip(ours, steps_of_head(False, hybridize, native), strict=True):
        assert np.abs(mine - theirs).max() <= 1e-5 * max(1e-3, np.abs(theirs).max())


def test_the_fused_update_has_no_gradient_array_and_needs_a_forward_pass():
    head = build_head("cosface", 30, 8, fused_update=STEP)
    head.initialize()
    assert head.weight.grad_req == "null" and head.momentum["weight"].shape == (30, 8)
    with pytest.raises(RuntimeError, match="no forward pass"):
        head.update(mx.nd.array([0.1]))
    assert not build_head("cosface", 30, 8).momentum


def one_step(name, fuse, **settings):
    """Return loss, cosine, the embedding's gradient, centres and states after a step of SGD."""
    mx.random.seed(3)  # elasticface draws its margins
    generator = np.random.default_rng(7)
    head = build_head(name, 30, 8, fused_update=STEP if fuse else None, **settings)
    head.initialize()
    head.weight.set_data(mx.nd.array(generator.normal(size=(30, 8))))
    trainer = mx.gluon.Trainer(head.collect_params(), "sgd", {"momentum": 0.9, "wd": 5e-4}, None)
    trainer.set_learning_rate(0.5)
    embedding = mx.nd.array(5 * generator.normal(size=(20, 8)))
    embedding.attach_grad()
    with mx.autograd.record():
        loss, cosine = head(embedding, mx.nd.array(generator.integers(0, 30, 20)))
    loss.backward()
    trainer.update(20)
    if fuse:
        head.update(mx.nd.array([0.5]))
    parameters = head._collect_params_with_prefix()
    states = [parameters[key].data() for key in sorted(parameters)]
    return sorted(parameters), [a.asnumpy() for a in (loss, cosine, embedding.grad, *states)]


@pytest.mark.parametrize("name", PERMITTED)
def test_every_permitted_head_makes_the_same_step(name):
    settings = {"sub_centers": 1} if name == "sub_center_arcface" else {}
    (names, ours), (expected_names, expected) = (
        one_step(name, f, **settings) for f in (True, False)
    )
    assert names == expected_names  # those of the checkpoints
    for mine, theirs in zip(ours, expected, strict=True):
        assert np.abs(mine - theirs).max() <= 1e-5 * max(1e-3, np.abs(theirs).max())


@pytest.mark.parametrize("name", [*sorted({*HEADS} - {*PERMITTED}), "sub_center_arcface"])
def test_other_heads_are_refused(name):
    with pytest.raises(ops.OperatorError) as refused:
        build_head(name, 30, 8, fused_update=STEP)
    assert str(refused.value) == (
        "optim.fused_centres: supports only heads that have one centre per class and change only "
        f"the true class's cosine, got head.name={name!r}; set optim.fused_centres=false"
    )


def test_plain_operators_are_refused():
    ops.use("plain")
    with pytest.raises(ValueError, match=r"^optim.fused_centres: needs the fused operators"):
        build_head("cosface", 30, 8, fused_update=STEP)


def test_the_symbol_of_a_fused_head_has_its_loss_and_cosine():
    head = build_head("arcface", 30, 8, fused_update=STEP)
    head.initialize()
    generator = np.random.default_rng(7)
    inputs = {
        "embedding": mx.nd.array(generator.normal(size=(20, 8))),
        "label": mx.nd.array(generator.integers(0, 30, 20)),
        "fraction": mx.nd.array([0.7]),
    }
    loss, cosine = head(*map(mx.sym.var, inputs))
    values = {**inputs, head.weight.name: head.weight.data()}
    found = mx.sym.Group([loss, cosine]).bind(mx.cpu(), values).forward()
    with pytest.raises(RuntimeError, match="no forward pass"):
        head.update(mx.nd.array([0.1]))
    for symbolic, imperative in zip(found, head(*inputs.values()), strict=True):
        assert np.abs(symbolic.asnumpy() - imperative.asnumpy()).max() < 1e-5
