# SPDX-License-Identifier: Apache-2.0
"""Vision transformers: sizes, masks, skipped blocks, gradients."""

from __future__ import annotations

import warnings

import mxnet as mx
import numpy as np

from nets import build_net
from nets.layer_table import measure
from nets.vision_transformer import MaskedTokens
from tests.nets.steps import images, train_step

SIZE = (36, 27)


def build(**options):
    mx.random.seed(0)
    net = build_net("vit_t", SIZE, embedding_size=8, depth=2, **options)
    net.initialize()
    return net


def test_the_counts_are_those_of_arcface_torch():
    size = measure(build_net("vit_t"))
    assert (size.parameters, size.macs) == (19_137_792, 1_504_882_688)


def test_every_parameter_learns():
    net = build(mask_ratio=0.25)
    net.hybridize(static_alloc=True, static_shape=True)
    y, gradients = train_step(net, images(6, size=SIZE))
    assert y.shape == (6, 8)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert [n for n, gradient in gradients.items() if not abs(gradient).max() > 0] == []


def test_inference_draws_no_masks_and_gives_no_warning():
    net = build(mask_ratio=0.5)
    net.hybridize()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = (net(images(2, size=SIZE)).asnumpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_without_masks_and_skips_training_is_deterministic():
    net = build(mask_ratio=0.0, drop_path=0.0)
    assert net.mask is None
    first, second = (train_step(net, images(4, size=SIZE))[0] for _ in range(2))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def test_at_least_one_patch_of_a_small_image_remains_in_training():
    for size in ((9, 9), (9, 18)):
        net = build_net("vit_t", size, embedding_size=8, depth=1, mask_ratio=0.9)
        net.initialize()
        y, _ = train_step(net, images(2, size=size))
        assert np.isfinite(y).all()


def test_the_kept_tokens_return_to_their_places_and_the_learned_token_fills_the_others():
    mx.random.seed(1)
    mask = MaskedTokens(6, 3, ratio=0.5)
    mask.initialize()
    x = mx.nd.array(np.arange(2 * 6 * 3).reshape(2, 6, 3))
    chosen = mask.draw(mx.nd, x)
    np.testing.assert_array_equal(chosen.sum(axis=2).asnumpy(), 1.0)
    restored = mask(mx.nd.linalg_gemm2(chosen, x), chosen).asnumpy()
    kept = chosen.sum(axis=1).asnumpy().astype(bool)
    assert (kept.sum(axis=1) == 3).all()
    np.testing.assert_allclose(restored[kept], x.asnumpy()[kept])
    token = mask.token.data().asnumpy()[0, 0]
    np.testing.assert_allclose(restored[~kept], np.broadcast_to(token, (6, 3)))
