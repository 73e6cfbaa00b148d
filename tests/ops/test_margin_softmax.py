# SPDX-License-Identifier: Apache-2.0
"""Fused margin softmax against NumPy in float64: losses, gradients, edge cases, errors."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from heads import build_head
from ops.native.gpu.reference import LENGTH_EPSILON, margin_softmax


def reference(*inputs):
    """Return loss, maximum, total, d embedding and d centres in float64."""
    true = margin_softmax(*inputs)
    return true.loss, true.maximum, true.total, true.embedding_gradient, true.centres_gradient


def operator(x, w, label, psi, slope, scale, gradient):
    arrays = [mx.nd.array(a, dtype=a.dtype) for a in (x, w, label, psi, slope)]
    for array in arrays[:2]:
        array.attach_grad()
    with mx.autograd.record():
        loss, _, top, total, _, _ = mx.nd.face_margin_softmax(*arrays, scale=scale)
    loss.backward(mx.nd.array(gradient, dtype=gradient.dtype))
    found = (loss, top, total, arrays[0].grad, arrays[1].grad)
    return [a.asnumpy() for a in found]


def case(rows, dims, classes, dtype, seed=0, elsewhere=True):
    generator = np.random.default_rng(seed)
    x, w = generator.normal(size=(rows, dims)), generator.normal(size=(classes, dims))
    label = generator.integers(-1 if elsewhere else 0, classes, rows)
    psi, slope = generator.uniform(-1, 1, rows), generator.uniform(0.5, 2, rows)
    gradient = generator.uniform(0.1, 1, rows)
    return [a.astype(dtype) for a in (x, w, label, psi, slope)], gradient.astype(dtype)


def forms(x, w, label, psi, slope, gradient, scale, form, threshold):
    """Return loss, d x and d w of a variant in float64, from its definition."""
    rows, columns, group, numbers, squares = form
    inverse_x = 1 / np.sqrt((x * x).sum(1) + LENGTH_EPSILON) if rows else np.ones(len(x))
    inverse_w = 1 / np.sqrt((w * w).sum(1) + LENGTH_EPSILON) if columns else np.ones(len(w))
    x_hat, w_hat = x * inverse_x[:, None], w * inverse_w[:, None]
    score = x_hat @ w_hat.T - (0.5 * (w * w).sum(1) if squares else 0)
    value, d = score.copy(), np.ones_like(score)
    if numbers is not None:
        hard = score > threshold[:, None]
        value = np.where(
            hard, (numbers[0] * score + numbers[1]) * score + numbers[2], numbers[5] * score
        )
        d = np.where(hard, numbers[3] * score + numbers[4], numbers[5])
    for b in range(len(x)):
        y = int(label[b])
        for first in range(0, len(w), group):
            own = first <= y < first + group
            kept = y if own else first + np.argmax(value[b, first : first + group])
            for j in range(first, first + group):
                if j != kept:
                    value[b, j] = -np.inf
        if y >= 0:
            value[b, y], d[b, y] = psi[b], slope[b]
    logits = scale * value
    top = logits.max(1)
    total = np.exp(logits - top[:, None]).sum(1)
    loss = top + np.log(total) - np.where(label >= 0, scale * psi, 0)
    g = np.exp(logits - top[:, None]) / total[:, None]
    here = np.flatnonzero(label >= 0)
    g[here, label[here].astype(int)] -= 1
    g *= scale * d * gradient[:, None]
    dx, dw = g @ w_hat * inverse_x[:, None], g.T @ x_hat * inverse_w[:, None]
    if rows:
        dx -= (dx * x_hat).sum(1)[:, None] * x_hat
    if columns:
        dw -= (dw * w_hat).sum(1)[:, None] * w_hat
    if squares:
        dw -= g.sum(0)[:, None] * w
    return loss, dx, dw


FORMS = {  # unit_rows, unit_columns, group, six numbers of columns, squares
    "distances": (False, False, 1, None, True),
    "inner products": (False, False, 1, None, False),
    "unscaled rows": (False, True, 1, None, False),
    "unscaled columns": (True, False, 1, None, False),
    "three centres": (True, True, 3, None, False),
    "five centres of inner products": (False, False, 5, None, False),
    "hard columns": (True, True, 1, (0.7, 1.2, 0.3, 1.4, 1.2, 1.0), False),
    "hard columns, zero for others": (True, True, 1, (1.0, 0.0, -0.06, 1.0, 0.25, 0.0), False),
    "all options": (False, False, 2, (0.1, 1.2, 0.3, 0.2, 1.2, 0.5), False),
}


@pytest.mark.parametrize("size", [(1, 7, 1), (5, 16, 193), (33, 130, 97), (31, 33, 600)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("form", FORMS)
def test_variants_match_their_definition(form, dtype, size):
    rows, columns, group, numbers, squares = FORMS[form]
    (x, w, label, psi, slope), gradient = case(size[0], size[1], size[2] * group, dtype, seed=2)
    x, w, scale = x * dtype(0.4), w * dtype(0.4), 4.0
    settings = {"scale": scale, "unit_rows": int(rows), "unit_columns": int(columns)}
    settings |= {"group": group, "squares": int(squares), "columns": int(numbers is not None)}
    threshold = np.random.default_rng(3).uniform(-0.5, 0.5, size[0]).astype(dtype)
    arrays = [mx.nd.array(a, dtype=dtype) for a in (x, w, label, psi, slope)]
    if numbers:
        arrays += [mx.nd.array(a, dtype=dtype) for a in (threshold, numbers)]
    for array in arrays[:2]:
        array.attach_grad()
    with mx.autograd.record():
        loss = mx.nd.face_margin_softmax(*arrays, **settings)[0]
    loss.backward(mx.nd.array(gradient, dtype=dtype))
    double = (a.astype(np.float64) for a in (x, w, label, psi, slope, gradient))
    expected = forms(*double, scale, FORMS[form], threshold)
    limit = 1e-9 if dtype == np.float64 else 1e-5
    for ours, true in zip((loss, arrays[0].grad, arrays[1].grad), expected, strict=True):
        assert np.abs(ours.asnumpy() - true).max() <= limit * max(1, np.abs(true).max())
    without = mx.nd.face_margin_softmax(*arrays, **settings, pulls=0)
    np.testing.assert_array_equal(without[0].asnumpy(), loss.asnumpy())


SIZES = [  # odd sizes, one row, one class, boundaries of tiles (96) and panels (8 to 32)
    *((1, 1, 1), (1, 7, 1), (3, 5, 7), (33, 130, 97), (64, 512, 96), (5, 16, 193), (130, 64, 5)),
    *((32, 32, 95), (31, 33, 1000), (128, 128, 1000)),
]


@pytest.mark.parametrize("scale", [1.0, 64.0, 256.0])
@pytest.mark.parametrize("size", SIZES)
def test_results_in_double_precision_match_the_definition(size, scale):
    inputs, gradient = case(*size, np.float64)
    found = operator(*inputs, scale, gradient)
    expected = reference(*inputs, scale, gradient)
    for ours, true in zip(found, expected, strict=True):
        assert np.abs(ours - true).max() <= 1e-9 * max(1, np.abs(true).max())


@pytest.mark.parametrize("scale", [30.0, 64.0])
@pytest.mark.parametrize("size", [s for s in SIZES if s[2] > 1])
def test_results_in_single_precision_are_within_1e_5(size, scale):
    inputs, gradient = case(*size, np.float32)
    found = operator(*inputs, scale, gradient)
    expected = reference(*inputs, scale, gradient)
    for ours, true in zip(found, expected, strict=True):
        assert np.abs(ours - true).max() <= 1e-5 * max(1, np.abs(true).max())


def at_angles(degrees, dims=64, classes=50, seed=1):
    """Return embeddings at given angles to the centre of their class."""
    generator = np.random.default_rng(seed)
    w = generator.normal(size=(classes, dims))
    label = generator.integers(0, classes, len(degrees))
    centre = w[label] / np.linalg.norm(w[label], axis=1, keepdims=True)
    aside = generator.normal(size=(len(degrees), dims))
    aside -= (aside * centre).sum(1, keepdims=True) * centre
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    t = np.radians(degrees)[:, None]
    x = (np.cos(t) * centre + np.sin(t) * aside) * generator.uniform(0.1, 30, (len(degrees), 1))
    return x.astype(np.float32), w.astype(np.float32), label.astype(np.float32)


@pytest.mark.parametrize(
    ("degrees", "tolerance"),
    [(np.linspace(10, 170, 81), 1e-5), (np.array([0, 0.01, 1, 5, 175, 179, 179.99, 180]), 1e-3)],
    ids=["10 to 170", "outside"],
)
@pytest.mark.parametrize("margin", [{"m2": 0.5}, {"m3": 0.35}, {"m1": 1.35}])
@pytest.mark.parametrize("scale", [30.0, 256.0])
def test_gradients_of_heads_at_all_angles(degrees, tolerance, margin, scale):
    x, w, label = at_angles(degrees)
    name = {"m2": "arcface", "m3": "cosface", "m1": "sphereface"}[next(iter(margin))]
    head = build_head(name, len(w), x.shape[1], scale=scale, **margin)
    head.initialize()
    head.weight.set_data(mx.nd.array(w))
    embedding = mx.nd.array(x)
    embedding.attach_grad()
    with mx.autograd.record():
        loss, cosine = head(embedding, mx.nd.array(label))
    loss.backward()
    # psi and slope as the head computes them, from the float32 cosine; the rest in float64.
    from heads.margins import combined_margin

    values = {"m1": 1.0, "m2": 0.0, "m3": 0.0, **margin}
    psi, slope = (a.asnumpy() for a in combined_margin(mx.nd, cosine, **values, easy_margin=False))
    ones = np.ones(len(x), dtype=np.float32)
    true_loss, _, _, dx, dw = reference(x, w, label, psi, slope, scale, ones)
    assert np.abs(loss.asnumpy() - true_loss).max() <= 1e-5 * max(1, np.abs(true_loss).max())
    # Long embeddings have small gradients, so scale each row by its length.
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    ours = embedding.grad.asnumpy() * lengths
    assert np.isfinite(ours).all()
    assert np.abs(ours - dx * lengths).max() <= tolerance * np.abs(dx * lengths).max()
    assert np.abs(head.weight.grad().asnumpy() - dw).max() <= tolerance * np.abs(dw).max()


def test_a_class_far_below_the_others_does_not_underflow():
    # The target has cosine -1, the others 1: a constant shift by `scale` would lose the target.
    x = np.array([[1.0, 0.0]], dtype=np.float32)
    w = np.array([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    label, psi = np.zeros(1, np.float32), np.array([-1.0], np.float32)
    ones = np.ones(1, np.float32)
    loss, top, total, _, _ = operator(x, w, label, psi, ones, 256.0, ones)
    assert loss[0] == pytest.approx(512 + np.log(2), rel=1e-6)
    assert top[0] == pytest.approx(256) and total[0] == pytest.approx(2)
    # All classes at cosine -1.
    loss, top, total, dx, _ = operator(x, -np.abs(w), label, -ones, ones, 256.0, ones)
    assert loss[0] == pytest.approx(np.log(3), rel=1e-5)
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("target", [0, 40000, 87019])
@pytest.mark.parametrize(("scale", "psi"), [(21.475, 1.0), (8.687, 1.0), (21.475, -0.5)])
def test_many_tiny_probabilities_are_not_lost_in_the_sum(target, scale, psi):
    # Each is below float32's resolution at the target's 1, but the sum of 87,019 is not.
    w = np.tile(np.array([0, 1], np.float32), (87020, 1))
    w[target] = 1, 0
    row = (np.full(1, value, np.float32) for value in (target, psi, 1))
    x, one = np.array([[3, 0]], np.float32), np.ones(1, np.float32)
    loss, top, total, dx, _ = operator(x, w, *row, scale, one)
    rest = 87019 * np.exp(-scale * psi)  # sum over the non-targets
    assert loss[0] == pytest.approx(np.log1p(rest), rel=1e-5, abs=2e-7)
    assert np.log(total[0]) + top[0] == pytest.approx(np.log1p(rest) + scale * psi, rel=1e-6)
    assert np.abs(dx[0, 1]) == pytest.approx(scale * rest / (1 + rest) / 3, rel=5e-4)


def test_losses_of_two_class_shards_combine_to_the_whole_loss():
    (x, w, label, psi, slope), gradient = case(9, 20, 300, np.float64, elsewhere=False)
    # Combine two shards of the classes as two ranks do.
    parts = [(0, 130), (130, 300)]
    losses, tops, totals = [], [], []
    for begin, end in parts:
        here = (label >= begin) & (label < end)
        mine = np.where(here, label - begin, -1)
        _, top, total, _, _ = operator(x, w[begin:end], mine, psi, slope, 64.0, gradient)
        tops.append(top)
        totals.append(total)
        losses.append(here)
    top = np.maximum(*tops)
    total = sum(t * np.exp(m - top) for t, m in zip(totals, tops))
    whole, _, _, _, _ = reference(x, w, label, psi, slope, 64.0, gradient)
    assert np.abs(top + np.log(total) - 64.0 * psi - whole).max() < 1e-10


@pytest.mark.parametrize("label", [-2.0, 7.0, 0.5, float("nan")])
def test_a_label_out_of_range_is_refused(label):
    (x, w, labels, psi, slope), gradient = case(3, 4, 7, np.float32)
    labels[1] = label
    with pytest.raises(
        mx.base.MXNetError, match="label of row 1 must be one of 7 classes, got .*; use 0"
    ):
        operator(x, w, labels, psi, slope, 64.0, gradient)


def test_a_hybridized_head_gives_the_same_results():
    x, w, label = at_angles(np.linspace(5, 175, 40))
    results = []
    for hybridize in (False, True):
        head = build_head("arcface", len(w), x.shape[1], m2=0.5)
        head.initialize()
        head.weight.set_data(mx.nd.array(w))
        if hybridize:
            head.hybridize(static_alloc=True, static_shape=True)
        embedding = mx.nd.array(x)
        embedding.attach_grad()
        for _ in range(3):
            with mx.autograd.record():
                loss, cosine = head(embedding, mx.nd.array(label), mx.nd.array([0.7]))
            loss.backward()
        arrays = (loss, cosine, embedding.grad, head.weight.grad())
        results.append([a.asnumpy() for a in arrays])
    for eager, traced in zip(*results, strict=True):
        assert (eager == traced).all()


def test_grad_req_add_is_refused():
    head = build_head("cosface", 5, 4)
    head.initialize()
    head.collect_params().setattr("grad_req", "add")
    with pytest.raises(ValueError, match=r"^head: the fused operators cannot add to a gradient, "):
        with mx.autograd.record():
            head(mx.nd.ones((2, 4)), mx.nd.zeros((2,)))


def test_gradients_of_two_heads_on_one_embedding_are_added():
    x, w, label = at_angles(np.linspace(20, 160, 8))
    heads = [build_head("arcface", len(w), x.shape[1], m2=m2) for m2 in (0.1, 0.5)]
    for head in heads:
        head.initialize()
        head.weight.set_data(mx.nd.array(w))
    gradients = []
    for used in ([0], [1], [0, 1]):
        embedding = mx.nd.array(x)
        embedding.attach_grad()
        with mx.autograd.record():
            kept = embedding * 1.0
            total = sum(heads[i](kept, mx.nd.array(label))[0] for i in used)
        total.backward()
        gradients.append(embedding.grad.asnumpy())
    assert (
        np.abs(gradients[0] + gradients[1] - gradients[2]).max() < 1e-6 * np.abs(gradients[2]).max()
    )


def test_forward_returns_cosine_embedding_gradient_and_share_bound():
    (x, w, label, psi, slope), _ = case(33, 20, 300, np.float64)
    arrays = [mx.nd.array(a, dtype=a.dtype) for a in (x, w, label, psi, slope)]
    _, cosine, _, _, pull, share = (
        a.asnumpy() for a in mx.nd.face_margin_softmax(*arrays, scale=64.0)
    )
    lengths = np.linalg.norm(x, axis=1), np.linalg.norm(w, axis=1)
    all_cosines = (x @ w.T) / lengths[0][:, None] / lengths[1]
    here = label >= 0
    expected = np.where(here, all_cosines[np.arange(33), label.astype(int)], 0)
    assert np.abs(cosine - expected).max() < 1e-9
    *_, dx, _ = reference(x, w, label, psi, slope, 64.0, np.ones(33))
    assert np.abs(pull - dx).max() <= 1e-9 * np.abs(dx).max()
    logits = 64.0 * all_cosines
    logits[here, label[here].astype(int)] = 64.0 * psi[here]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert (share >= p.sum(0) / lengths[1] * (1 - 1e-9)).all()
    assert (share[np.unique(label[here]).astype(int)] > 1e200).all()


def late_in_training(hard, rows=64, dims=32, classes=5000, seed=4):
    """Return inputs as late in training: all embeddings but ``hard`` are near their centres."""
    generator = np.random.default_rng(seed)
    degrees = np.where(np.arange(rows) < hard, 75, generator.uniform(5, 20, rows))
    x, w, label = at_angles(degrees, dims, classes, seed)
    psi = np.cos(np.radians(degrees) + 0.5).astype(np.float32)
    return x, w, label, psi, np.ones(rows, np.float32)


@pytest.mark.parametrize(("hard", "least", "most"), [(3, 0.3, 1), (64, 0, 0.3)])
def test_backward_skips_classes_with_a_millionth_of_the_largest_gradient(hard, least, most):
    inputs = late_in_training(hard)
    gradient = np.full(64, 1 / 64, dtype=np.float32)
    *_, dw = operator(*inputs, 64.0, gradient)
    *_, true = reference(*inputs, 64.0, gradient)
    skipped = (dw == 0).all(1)
    assert least <= skipped.mean() <= most
    assert np.abs(true[skipped]).max(initial=0) <= 1e-6 * np.abs(true).max()
    # Rounding of the others: a float32 logit of 64 has an error of 4e-6.
    assert np.abs(dw - true).max() <= 1e-5 * np.abs(true).max()


def test_backward_skips_no_class_if_a_row_is_nan():
    x, w, label, psi, slope = late_in_training(3)
    x[10, 5] = np.nan
    loss, _, _, dx, dw = operator(x, w, label, psi, slope, 64.0, np.ones(64, np.float32))
    assert np.isnan(loss[10]) and np.isnan(dx[10]).all() and np.isfinite(np.delete(loss, 10)).all()
    assert np.isnan(dw).any(1).all()


def test_the_update_in_double_precision_matches_the_definition():
    (x, w, label, psi, slope), _ = case(9, 20, 300, np.float64)
    velocity = np.random.default_rng(5).normal(size=w.shape)
    arrays = [mx.nd.array(a, dtype=a.dtype) for a in (x, w, label, psi, slope)]
    centres, moved = arrays[1], mx.nd.array(velocity, dtype=np.float64)
    out = mx.nd.face_margin_softmax(*arrays, scale=64.0)
    kept = (out[1], out[2], out[3], out[5])
    rate = mx.nd.array([0.3], dtype=np.float64)
    mx.nd.face_margin_softmax_update(
        *arrays, *kept, moved, rate, scale=64.0, momentum=0.9, weight_decay=5e-4
    ).wait_to_read()
    *_, dw = reference(x, w, label, psi, slope, 64.0, np.full(9, 1 / 9))
    expected = 0.9 * velocity - 0.3 * (dw + 5e-4 * w)
    assert np.abs(moved.asnumpy() - expected).max() < 1e-9
    assert np.abs(centres.asnumpy() - (w + expected)).max() < 1e-9
