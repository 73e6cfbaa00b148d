# SPDX-License-Identifier: Apache-2.0
"""GPU operators of PReLU and batch normalisation on the emulated device, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from ops.native.gpu import reference
from tests.ops.gpu.device import check_close

EPSILON, MOMENTUM = 1e-5, 0.9
# (N, C, P): planes of one pixel, with and without whole packs, and channels of several parts.
SHAPES = [(1, 1, 1), (4, 3, 1), (2, 5, 49), (3, 4, 196), (7, 2, 13), (5, 2, 9001), (9, 1, 3136)]
PRECISIONS = [(np.float64, 1e-9), (np.float32, 1e-5)]


def away_from_zero(x):
    """Return x without values so near 0 that rounding could change their sign."""
    return np.where(np.abs(x) < 1e-3, 1e-3, x)


@pytest.mark.parametrize("misaligned", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_prelu_matches_numpy_in_every_order_of_threads(
    device, orders, shape, dtype, tolerance, misaligned
):
    device.misaligned = misaligned
    generator = np.random.default_rng(0)
    x, dy = away_from_zero(generator.normal(size=shape)), generator.normal(size=shape)
    slope = generator.uniform(-0.3, 0.6, shape[1])
    on = [device.array(a, dtype) for a in (x, slope, dy)]
    found = orders(
        lambda: [device.operators.prelu(*on[:2]), *device.operators.prelu_gradients(*on)]
    )
    for ours, true in zip(found, reference.prelu(x, slope, dy)):
        check_close(ours, true, tolerance)


@pytest.mark.parametrize("with_prelu", [False, True])
@pytest.mark.parametrize("misaligned", [False, True])
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_batch_norm_matches_numpy_in_every_order_of_threads(
    device, orders, shape, with_prelu, dtype, tolerance, misaligned
):
    device.misaligned = misaligned
    generator = np.random.default_rng(1)
    x = generator.normal(size=shape) * 3 + 5  # far from 0: plain sums of squares would cancel
    x[0, 0, 0] += 300  # an outlier as first value: differences from it would cancel
    gamma, beta, slope = (
        generator.uniform(0.5, 2, shape[1]),
        generator.normal(size=shape[1]),
        generator.uniform(-0.3, 0.6, shape[1]) if with_prelu else None,
    )
    running = generator.normal(size=shape[1]), generator.uniform(0.5, 2, shape[1])
    dy = generator.normal(size=shape)
    inputs = [None if a is None else device.array(a, dtype) for a in (x, gamma, beta, slope)]
    # Start from the rounded inputs, so that both sides apply the same slope to each value.
    wide = [None if a is None else a.astype(np.float64) for a in inputs]
    true = reference.batch_norm(*wide, running, EPSILON, MOMENTUM, dy)
    # Ignore gradients of values so near 0 that float32 could change their sign.
    dy[np.abs(true.y) < 1e-4] = 0
    true = reference.batch_norm(*wide, running, EPSILON, MOMENTUM, dy)
    gradient = device.array(dy, dtype)

    def compute():
        moved = [device.array(a, dtype) for a in running]
        y, mean, inverse = device.operators.batch_norm(inputs, moved, EPSILON, MOMENTUM)
        gradients = device.operators.batch_norm_gradients(inputs, mean, inverse, gradient, EPSILON)
        return [y, mean, inverse, *moved, *gradients]

    for ours, theirs in zip(orders(compute), true):
        check_close(ours, theirs, tolerance)


def test_a_constant_channel_has_no_variance(device):
    x = np.full((3, 2, 20), 1e4, np.float32)
    ones = device.array(np.ones(2, np.float32))
    inputs = [device.array(x), ones, device.array(np.zeros(2, np.float32)), None]
    running = [device.array(np.zeros(2, np.float32)) for _ in range(2)]
    y, mean, inverse = device.operators.batch_norm(inputs, running, EPSILON, MOMENTUM)
    assert (mean == 1e4).all() and np.allclose(inverse, EPSILON**-0.5)
    assert (y == 0).all() and (running[1] == 0).all()


@pytest.mark.parametrize("outlier", [0, 1e3])
def test_batch_norm_is_accurate_if_the_mean_exceeds_the_deviation(device, outlier):
    x = np.random.default_rng(3).normal(size=(4, 2, 900)) * 0.1 + 100
    x[0, :, 0] += outlier  # the first value: the kernel sums differences from it
    x = x.astype(np.float32)
    inputs = [device.array(x), *(device.array(np.ones(2, np.float32)) for _ in range(2)), None]
    running = [device.array(np.zeros(2, np.float32)) for _ in range(2)]
    y, mean, inverse = device.operators.batch_norm(inputs, running, EPSILON, MOMENTUM)
    zeros = np.zeros(2)
    true = reference.batch_norm(
        x, np.ones(2), np.ones(2), None, (zeros, zeros), EPSILON, MOMENTUM, x
    )
    for ours, theirs in zip((y, mean, inverse, *running), true):
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_nan_reaches_the_output_of_its_channel_only(device):
    x = np.random.default_rng(0).normal(size=(3, 2, 20)).astype(np.float32)
    x[1, 0, 3] = np.nan
    ones = device.array(np.ones(2, np.float32))
    inputs = [device.array(x), ones, device.array(np.zeros(2, np.float32)), None]
    running = [device.array(np.zeros(2, np.float32)) for _ in range(2)]
    y, _, _ = device.operators.batch_norm(inputs, running, EPSILON, MOMENTUM)
    assert np.isnan(y[:, 0]).all() and np.isfinite(y[:, 1]).all()


@pytest.mark.parametrize("count", [1, 255, 256, 1000])
def test_fill_sets_every_value(device, count):
    array = device.empty((count,), np.float32)
    device.operators.fill(array, 3.5)
    assert (array == 3.5).all()


@pytest.mark.parametrize("number", [0, 2])
def test_a_check_creates_a_context_only_on_the_gpu_of_the_rank(device, number):
    device.contexts()
    assert device.operators.fault(number) is None
    assert device.contexts() == [number]  # no rank uses memory of GPU 0 but rank 0
    assert device.current() == 0


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (3, "no kernel image is available for execution on the device"),
        (4, "invalid device ordinal"),
        (-1, "invalid device ordinal"),
    ],
)
def test_an_unusable_gpu_does_not_affect_the_others(device, number, why):
    assert device.operators.fault(number) == why
    assert device.current() == 0
    assert device.operators.fault(1) is None  # the error is cleared
