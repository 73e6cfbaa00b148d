# SPDX-License-Identifier: Apache-2.0
"""GPU operator of the margin softmax on the emulated device, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from ops.native.gpu import reference
from ops.native.gpu.harness import HarnessError
from tests.ops.gpu.device import check_close

PRECISIONS = [(np.float64, 1e-9), (np.float32, 1e-5)]


def case(rows, dims, classes, seed=0, elsewhere=True):
    """Return embedding, centres, label, psi and slope, and gradients of the losses."""
    generator = np.random.default_rng(seed)
    x, w = generator.normal(size=(rows, dims)), generator.normal(size=(classes, dims))
    label = generator.integers(-1 if elsewhere else 0, classes, rows).astype(float)
    psi, slope = generator.uniform(-1, 1, rows), generator.uniform(0.5, 2, rows)
    return [x, w, label, psi, slope], generator.uniform(0.1, 1, rows)


def compute(device, inputs, gradient, scale, chunk=0):
    """Return the outputs of forward and the gradients of backward."""
    results = device.operators.margin_softmax(inputs, scale, chunk)
    gradients = device.operators.margin_softmax_gradients(inputs, results, gradient, scale, chunk)
    return [*results, *gradients]


def check(found, inputs, gradient, scale, tolerance):
    true = reference.margin_softmax(*inputs, scale, gradient)
    for name, ours, theirs in zip(true._fields, found, true):
        if name == "share":
            assert (ours >= theirs * (1 - 1e-5)).all()
        else:
            check_close(ours, theirs, tolerance)


SIZES = [  # rows, dimensions, classes, chunk size: single values, boundaries of warps and chunks
    *((1, 1, 1, 0), (1, 7, 1, 1), (3, 5, 7, 3), (2, 33, 64, 32), (9, 16, 193, 64), (17, 70, 5, 2)),
    *((5, 512, 97, 96), (33, 31, 130, 129), (2, 3, 2500, 2100), (1, 2, 2049, 0)),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_results_match_the_definition_in_every_order_of_threads(
    device, orders, size, dtype, tolerance
):
    *sides, chunk = size
    inputs, gradient = case(*sides)
    inputs = [device.array(a, dtype) for a in inputs]
    gradient = device.array(gradient, dtype)
    found = orders(lambda: compute(device, inputs, gradient, 64.0, chunk))
    # In one dimension the gradient is 0, and the result is the rounding error of scale / |x|.
    check(found, inputs, gradient, 64.0, tolerance * (100 if sides[1] == 1 else 1))


@pytest.mark.parametrize("scale", [1.0, 256.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 5e-5)])
def test_results_are_accurate_at_small_and_large_scales(device, scale, dtype, tolerance):
    # `scale` multiplies the rounding error of a cosine.
    inputs, gradient = case(6, 40, 90)
    inputs = [device.array(a, dtype) for a in inputs]
    found = compute(device, inputs, device.array(gradient, dtype), scale, 32)
    check(found, inputs, gradient, scale, tolerance)


@pytest.mark.parametrize("cosine", [1.0, -1.0])
@pytest.mark.parametrize("scale", [64.0, 256.0])
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_results_are_accurate_for_embeddings_parallel_to_their_centres(
    device, cosine, scale, dtype, tolerance
):
    (_, w, label, psi, slope), gradient = case(8, 24, 50, elsewhere=False)
    x = cosine * w[label.astype(int)] * np.linspace(0.1, 30, 8)[:, None]
    psi[:] = cosine  # 1 - p is about 1e-20 or 1e-80
    inputs = [device.array(a, dtype) for a in (x, w, label, psi, slope)]
    found = compute(device, inputs, device.array(gradient, dtype), scale, 16)
    check(found, inputs, gradient, scale, tolerance)


def test_a_target_far_below_the_other_logits_does_not_underflow(device):
    # The target has cosine -1, the others 1: a constant shift by `scale` would lose the target.
    x, w = np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    label, psi, slope = np.zeros(1), -np.ones(1), np.ones(1)
    for centres, loss, top, total in (
        (w, 512 + np.log(2), 256, 2),
        (-np.abs(w), np.log(3), -256, 3),
    ):
        inputs = [device.array(a, np.float32) for a in (x, centres, label, psi, slope)]
        found = device.operators.margin_softmax(inputs, 256.0, 1)
        assert found.loss[0] == pytest.approx(loss, rel=1e-6)
        assert found.maximum[0] == pytest.approx(top) and found.total[0] == pytest.approx(total)
        assert np.isfinite(found.pull).all()


def test_the_gradient_is_accurate_if_the_target_is_almost_certain(device):
    # 1 - p is about 1e-8, below float32's resolution at 1: it must come from the other classes.
    x, w = np.array([[1.0, 0.3]]), np.array([[1.0, 0.0], [-0.2, 1.0], [-0.5, 1.0]])
    inputs = [x, w, np.zeros(1), np.full(1, 0.95), np.full(1, 1.3)]
    true = reference.margin_softmax(*inputs, 22.0, np.ones(1))
    assert 1e-9 < true.loss[0] < 1e-7
    inputs = [device.array(a, np.float32) for a in inputs]
    found = device.operators.margin_softmax(inputs, 22.0)
    ones = device.array(np.ones(1, np.float32))
    gradients = device.operators.margin_softmax_gradients(inputs, found, ones, 22.0)
    for ours, theirs in (
        (found.loss, true.loss),
        (found.pull, true.pull),
        (gradients[1], true.centres_gradient),
    ):
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("label", [-2.0, 7.0, 0.5, float("nan"), float("inf"), 1e30])
def test_an_invalid_label_gives_a_nan_loss_and_zero_gradients(device, label):
    inputs, gradient = case(3, 4, 7, elsewhere=False)
    clean, _ = case(3, 4, 7, elsewhere=False)
    inputs[2][1] = label
    inputs = [device.array(a, np.float32) for a in inputs]
    gradient = device.array(gradient, np.float32)
    loss, cosine, _, _, pull, _, dx, dw = compute(device, inputs, gradient, 64.0, 4)
    assert np.isnan(loss[1]) and np.isnan(cosine[1])
    assert (pull[1] == 0).all() and (dx[1] == 0).all()
    gradient[1] = 0
    true = reference.margin_softmax(*clean, 64.0, gradient)
    check_close(loss[[0, 2]], true.loss[[0, 2]], 1e-5)
    check_close(dw, true.centres_gradient, 1e-5)


def test_an_invalid_label_gives_zero_gradients_if_all_cosines_are_minus_one(device):
    x, w = -np.ones((1, 4)), np.ones((3, 4))  # exp(0 - maximum) is infinite in float32
    inputs = [x, w, np.full(1, 3.0), np.zeros(1), np.ones(1)]
    inputs = [device.array(a, np.float32) for a in inputs]
    ones = device.array(np.ones(1, np.float32))
    *_, dx, dw = compute(device, inputs, ones, 256.0)
    assert (dx == 0).all() and (dw == 0).all()


def test_an_embedding_that_is_not_finite_gives_a_nan_loss(device):
    for wrong in (np.nan, np.inf):
        inputs, _ = case(3, 4, 7, elsewhere=False)
        inputs[0][1, 2] = wrong
        inputs = [device.array(a, np.float32) for a in inputs]
        loss = device.operators.margin_softmax(inputs, 64.0, 4).loss
        assert np.isnan(loss[1]) and np.isfinite(loss[[0, 2]]).all()


@pytest.mark.parametrize("chunk", [0, 7, 64])
@pytest.mark.parametrize("with_loss", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_the_update_equals_an_sgd_step(device, orders, chunk, with_loss, dtype, tolerance):
    inputs, _ = case(9, 20, 130)
    velocity = np.random.default_rng(5).normal(size=inputs[1].shape)
    each, rate, momentum, decay = 1 / 9, 0.3, 0.9, 5e-2
    true = reference.margin_softmax(*inputs, 64.0, np.full(9, each))
    w, v = reference.step(inputs[1], velocity, true.centres_gradient, rate, momentum, decay)

    def compute_step():
        on = [device.array(a, dtype) for a in inputs]
        moved, rates = device.array(velocity, dtype), device.array(np.array([rate]), dtype)
        results = device.operators.margin_softmax(on, 64.0, chunk)
        if not with_loss:
            results = results._replace(loss=None)
        numbers = (momentum, decay, each)
        device.operators.margin_softmax_step(on, results, moved, rates, numbers, 64.0, chunk)
        return on[1], moved

    found = orders(compute_step)
    check_close(found[0], w, tolerance)
    check_close(found[1], v, tolerance)


def test_results_of_two_class_shards_combine_to_the_whole_loss(device):
    (x, w, label, psi, slope), gradient = case(9, 20, 300, elsewhere=False)
    tops, totals = [], []
    for begin, end in ((0, 130), (130, 300)):
        mine = np.where((label >= begin) & (label < end), label - begin, -1)
        inputs = [device.array(a) for a in (x, w[begin:end], mine, psi, slope)]
        found = device.operators.margin_softmax(inputs, 64.0, 50)
        tops.append(found.maximum)
        totals.append(found.total)
    top = np.maximum(*tops)
    total = sum(t * np.exp(m - top) for t, m in zip(totals, tops))
    whole = reference.margin_softmax(x, w, label, psi, slope, 64.0, gradient)
    check_close(top + np.log(total) - 64.0 * psi, whole.loss, 1e-10)


@pytest.mark.parametrize("size", [(1, 128, 10), (128, 512, 85742), (512, 512, 10**6)])
@pytest.mark.parametrize("update", [False, True])
def test_the_workspace_stays_below_32_mib(device, size, update):
    for width in (4, 8):
        needed = device.operators.margin_softmax_bytes(width, size, update)
        assert needed <= 32 << 20
        # The chunks fill it, unless the limit of classes per chunk makes them smaller.
        assert needed > 12 << 20 or size[0] * size[2] < 2**23


def test_a_matrix_side_of_zero_is_refused(device):
    inputs = [device.empty(shape, np.float32) for shape in ((2, 0), (3, 0), (2,), (2,), (2,))]
    with pytest.raises(HarnessError, match="a matrix side or stride is not within 1 to"):
        device.operators.margin_softmax(inputs, 64.0)
