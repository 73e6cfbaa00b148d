# SPDX-License-Identifier: Apache-2.0
"""Self-attention against arithmetic in NumPy."""

from __future__ import annotations

import mxnet as mx
import numpy as np

from nets.self_attention import SelfAttention, TransformerBlock


def test_attention_is_that_of_the_paper():
    mx.random.seed(0)
    layer = SelfAttention(8, 2)
    layer.initialize(mx.init.Normal(0.5), force_reinit=True)
    layer.qkv.weight.set_data(mx.nd.random.normal(shape=(24, 8)))
    x = np.random.RandomState(0).normal(size=(2, 5, 8))
    query, key, value = np.split(x @ layer.qkv.weight.data().asnumpy().T, 3, axis=2)
    parts = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = query[..., head] @ key[..., head].transpose(0, 2, 1) / 2
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        parts.append(weights / weights.sum(axis=2, keepdims=True) @ value[..., head])
    projection = layer.project.weight.data().asnumpy()
    expected = np.concatenate(parts, axis=2) @ projection.T + layer.project.bias.data().asnumpy()
    np.testing.assert_allclose(layer(mx.nd.array(x)).asnumpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_block_skips_whole_images_in_training():
    mx.random.seed(3)
    block = TransformerBlock(8, 2, drop_path=0.5)
    block.initialize()
    x = mx.nd.random.normal(shape=(32, 5, 8))
    with mx.autograd.train_mode():
        change = abs(block(x) - x).asnumpy()
    skipped = (change == 0).all(axis=(1, 2))
    assert 0 < skipped.sum() < 32
    assert (change[~skipped] > 0).any(axis=(1, 2)).all()
