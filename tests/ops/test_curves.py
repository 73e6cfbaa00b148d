# SPDX-License-Identifier: Apache-2.0
"""Losses of a training with fused operators, against those with plain operators.

In single precision, training from scratch amplifies rounding errors: with plain operators, one
thread and two threads differ by 10 % after a few steps. So these tests compare a whole net in
double precision, and only a head in single precision.
"""

from __future__ import annotations

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

import ops
from heads import build_head
from nets.blocks import ConvNormPReLU
from nets.bottleneck import LinearBottleneck
from nets.embedding_layers import GlobalDepthwiseEmbedding
from tests.heads.test_fused_centres import steps_of_head

STEPS = 50


def batch_norm(self, F, x, gamma, beta, running_mean, running_var):
    """Compute batch normalisation in float64; MXNet's BatchNorm uses float32 internally."""
    axes = (0, 2, 3)
    away = F.broadcast_sub(x, F.mean(x, axis=axes, keepdims=True))
    variance = F.mean(away * away, axis=axes, keepdims=True)
    y = F.broadcast_div(away, F.sqrt(variance + self._kwargs["eps"]))
    gamma, beta = (F.reshape(a, shape=(1, -1, 1, 1)) for a in (gamma, beta))
    return F.broadcast_add(F.broadcast_mul(y, gamma), beta)


def small_net():
    """Return a net for 28x28 pixels with every block of MobileFaceNet."""
    net = nn.HybridSequential()
    net.add(
        ConvNormPReLU(3, 8, 3, 2, 1),
        ConvNormPReLU(8, 8, 3, 1, 1, groups=8),
        LinearBottleneck(8, 16, 24, 2),
        LinearBottleneck(16, 16, 24),
        ConvNormPReLU(16, 32),
        GlobalDepthwiseEmbedding(32, 16),
    )
    return net


def in_double_precision(net, head, rate):
    """Prepare net and head for training in double precision; return the trainer."""
    for block in (net, head):
        block.initialize()
        block.cast("float64")
        block.hybridize()
    parameters = {**net.collect_params(), **head.collect_params()}
    settings = {"learning_rate": rate, "momentum": 0.9, "wd": 5e-4}
    return mx.gluon.Trainer(parameters, "sgd", settings, kvstore=None)


def curve(choice):
    """Return the losses of a small net with an ArcFace head, trained in double precision."""
    ops.use(choice)
    mx.random.seed(3)
    net = small_net()
    head = build_head("arcface", 20, 16, m2=0.2, scale=24.0)
    trainer = in_double_precision(net, head, 0.002)
    generator = np.random.default_rng(4)
    people = generator.normal(size=(20, 3, 28, 28))
    margin = mx.nd.ones((1,), dtype="float64")
    losses = []
    for _ in range(STEPS):
        label = generator.integers(0, 20, 8)
        images = people[label] + 0.5 * generator.normal(size=(8, 3, 28, 28))
        with mx.autograd.record():
            embedding = net(mx.nd.array(images, dtype="float64"))
            loss, _ = head(embedding, mx.nd.array(label, dtype="float64"), margin)
        loss.backward()
        trainer.step(8)
        losses.append(loss.mean().asscalar())
    return np.array(losses)


def test_a_net_in_double_precision_has_the_same_losses_with_both_choices(monkeypatch):
    native = curve("native")
    monkeypatch.setattr(nn.BatchNorm, "hybrid_forward", batch_norm)
    plain = curve("plain")
    assert np.isfinite(plain).all() and len(set(plain)) == STEPS
    assert np.abs(native / plain - 1).max() <= 1e-3


def test_a_head_in_single_precision_has_the_same_losses_with_both_choices():
    native, plain = (steps_of_head(False, True, choice, steps=STEPS) for choice in (True, False))
    losses = [np.array([loss.mean() for loss in found[:-2:3]]) for found in (native, plain)]
    assert losses[0].shape == (STEPS,) and losses[0][-1] < losses[0][0]
    assert np.abs(losses[0] / losses[1] - 1).max() <= 1e-3
