# SPDX-License-Identifier: Apache-2.0
"""Computing symbols of other projects beside our own networks."""

from __future__ import annotations

import mxnet as mx
import numpy as np

from interchange.symbol_function import symbol_function

CHANNELS = 64


def test_a_vector_is_normalised_after_a_map_of_the_same_shape():
    """MXNet alone may end with a segmentation fault here."""
    y = mx.sym.Pooling(mx.sym.Variable("data"), global_pool=True, kernel=(1, 1), pool_type="avg")
    y = mx.sym.Convolution(y, kernel=(1, 1), num_filter=CHANNELS, no_bias=True, name="conv")
    y = mx.sym.BatchNorm(y, fix_gamma=False, name="map", eps=1e-5)
    y = mx.sym.BatchNorm(mx.sym.Flatten(y), fix_gamma=False, name="vector", eps=1e-5)
    random = np.random.default_rng(0)
    arrays = {"conv_weight": random.normal(size=(CHANNELS, 3, 1, 1)).astype(np.float32)}
    for name in ("map", "vector"):
        for part in ("gamma", "beta", "moving_mean", "moving_var"):
            arrays[f"{name}_{part}"] = random.uniform(0.5, 1.5, CHANNELS).astype(np.float32)
    images = random.normal(size=(8, 3, 4, 4)).astype(np.float32)
    expected = images.mean(axis=(2, 3)) @ arrays["conv_weight"][:, :, 0, 0].T
    for name in ("map", "vector"):
        gamma, beta, mean, var = (
            arrays[f"{name}_{part}"] for part in ("gamma", "beta", "moving_mean", "moving_var")
        )
        expected = (expected - mean) / np.sqrt(var + 1e-5) * gamma + beta
    embed = symbol_function(y, arrays, (4, 4))
    np.testing.assert_allclose(embed(images), expected, rtol=1e-4, atol=1e-4)
