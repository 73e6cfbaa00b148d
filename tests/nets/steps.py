# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of nets: random images, one training step and its gradients."""

import mxnet as mx
import numpy as np


def images(count=4, seed=0, size=(112, 112)):
    random = np.random.RandomState(seed)
    return mx.nd.array(random.uniform(-1, 1, (count, 3, *size)))


def learned(net):
    parameters = net._collect_params_with_prefix()
    return {name: p for name, p in parameters.items() if "running" not in name}


def train_step(net, x):
    with mx.autograd.record():
        y = net(x)
        loss = (y * mx.nd.arange(y.size).reshape(y.shape) / y.size).sum()
    loss.backward()
    return y.asnumpy(), {
        name: p.grad().asnumpy() for name, p in learned(net).items() if p.grad_req != "null"
    }
