# SPDX-License-Identifier: Apache-2.0
"""Compares every loss with its float64 oracle (tests/heads/oracles.py), at edge cases too.

Tests without a parameter for it run imperatively; one test compares the two modes of Gluon.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import threading

import mxnet as mx
import numpy as np
import pytest

from heads import HEADS, build_head
from ranges import settings
from tests.heads import oracles
from tests.heads.oracles import AFTER, BEFORE, LOSSES, PAIRS, Point, numeric_gradient

CLASSES, SIZE, BATCH = 7, 5, 12
# Three people have 4, 3 and 3 images, two have one image. Classes 2 and 4 have no image.
LABEL = np.array([0, 0, 0, 0, 6, 6, 6, 3, 3, 3, 1, 5])
MAGFACE = {"low": 2.0, "high": 8.0, "least": 0.2, "most": 0.7, "length_weight": 3.0}
# The scales are below the defaults, so that all classes contribute to the loss.
CASES = {
    "softmax": {},
    "softmax bias": {"use_bias": True},
    "l2_softmax": {"scale": 6.0},
    "l2_softmax bias": {"use_bias": True},
    "normface": {"scale": 16.0},
    "sphereface": {"scale": 16.0},
    "sphereface 3": {"m1": 3.0, "scale": 8.0},
    "a_softmax": {},
    "a_softmax 1": {"m1": 1},
    "a_softmax 2": {"m1": 2, "lambda_min": 1.0},
    "a_softmax 3": {"m1": 3, "lambda_min": 0.5},
    "cosface": {"scale": 16.0},
    "arcface": {"scale": 16.0},
    "arcface easy": {"scale": 16.0, "easy_margin": True},
    "combined": {"scale": 16.0},
    "combined folded": {"m1": 1.2, "m2": 0.4, "m3": 0.1, "scale": 8.0},
    "sv_softmax": {"scale": 16.0},
    "sv_softmax arc": {"t": 1.3, "m2": 0.4, "m3": 0.0, "scale": 16.0},
    "sv_softmax folded": {"m1": 1.2, "m3": 0.1, "scale": 8.0},
    "sv_softmax easy": {"scale": 16.0, "easy_margin": True},
    "sv_softmax arc easy": {"m2": 0.4, "m3": 0.0, "scale": 16.0, "easy_margin": True},
    "sv_softmax folded easy": {"m1": 1.2, "m2": 0.2, "scale": 8.0, "easy_margin": True},
    "sub_center_arcface": {"scale": 16.0},
    "sub_center_arcface 2": {"sub_centers": 2, "scale": 16.0, "easy_margin": True},
    "curricularface": {"scale": 16.0},
    "curricularface fast": {"momentum": 0.25, "m2": 0.3, "scale": 16.0},
    "curricularface unguarded": {"scale": 16.0, "guarded_threshold": False},
    "adacos": {},
    "adacos near": {},  # the median angle is below 45 degrees
    "adaface": {"scale": 16.0},
    "adaface clipped": {"h": 2.0, "scale": 16.0},  # qualities of -1 and 1
    "adaface fast": {"momentum": 0.5, "m": 0.3, "h": 0.5, "scale": 16.0},
    "magface": {**MAGFACE, "scale": 16.0},
    "magface easy": {**MAGFACE, "scale": 16.0, "easy_margin": True},
    "elasticface": {"sigma": 0.0, "scale": 16.0},
    "circle": {"scale": 16.0},
    "circle default scale": {},
    "intra": {"scale": 16.0},
    "inter": {"scale": 16.0, "inter_weight": 2.0},
    "coco": {},
    "center": {"center_weight": 0.1},
    "center bias": {"use_bias": True, "center_rate": 0.1},
    "git": {"center_weight": 0.1, "git_weight": 2.0},
    "git bias": {"use_bias": True},
    "ring": {"ring_weight": 0.5},
    "ring bias": {"use_bias": True},
    "lgm": {},
    "lgm strong": {"alpha": 0.5, "likelihood_weight": 1.0},
    "range": {"intra_weight": 0.1, "inter_weight": 0.05, "margin": 200.0},
    "range of three": {"intra_weight": 0.1, "largest": 3, "margin": 0.1, "use_bias": True},
    "marginal": {},
    "marginal bias": {"use_bias": True, "theta": 1.0, "xi": 0.5, "marginal_weight": 2.0},
    "contrastive": {},
    "contrastive wide": {"margin": 1.6},
    "triplet": {},
    "triplet hard": {"mining": "hard", "margin": 0.8},
    "triplet blocks": {"mining": "blocks", "margin": 0.5},
    "angular_triplet": {},
    "angular_triplet hard": {"mining": "hard"},
    "angular_triplet blocks": {"mining": "blocks"},
    "n_pair": {},
    "mps": {},
    "mps wide": {"margin": 1.5},
}
STATISTICS = [case for case in CASES if case.split()[0] in BEFORE | AFTER]
WITH_CENTRES = [case for case in CASES if case.split()[0] not in PAIRS]
TRAINED = ("x", "weight", "bias", "radius")


pytestmark = pytest.mark.usefixtures("operators")
with_plain_operators = pytest.mark.parametrize("operators", ["plain"], indirect=True)


def name_of(case):
    return case.split()[0]


def rows_of(case):
    """Return the number of rows of the class matrix."""
    if name_of(case) == "sub_center_arcface":
        return CLASSES * CASES[case].get("sub_centers", 3)
    return CLASSES


def at_angles(weight, angles, lengths, random):
    """Return embeddings at given angles from given centres, (B, E)."""
    centre = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    side = random.randn(*weight.shape)
    side -= (side * centre).sum(1, keepdims=True) * centre
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return lengths[:, None] * (np.cos(angles)[:, None] * centre + np.sin(angles)[:, None] * side)


def to_float32(point):
    """Round a point in place, so that the oracle and the head get equal numbers."""
    for key, value in vars(point).items():
        if value is not None:
            setattr(point, key, np.asarray(value).astype("f4").astype("f8"))
    return point


def inputs(case, seed=0, x=None, label=LABEL):
    """Return a point with angles of 4 to 174 degrees and lengths of 1 to 10.

    Losses on pairs get overlapping clusters instead, one for each person.
    """
    name, random = name_of(case), np.random.RandomState(seed)
    weight = random.randn(rows_of(case), SIZE) * 0.3
    if name in PAIRS:
        faces = random.randn(CLASSES, SIZE)
        embedding = 0.8 * (faces[label] + 0.7 * random.randn(len(label), SIZE))
        return to_float32(Point(embedding if x is None else x))
    own = weight[label * (rows_of(case) // CLASSES)]
    farthest = 60 if case == "adacos near" else 174
    angles = np.radians(np.linspace(4, farthest, len(label)))[random.permutation(len(label))]
    lengths = np.linspace(1, 10, len(label))[random.permutation(len(label))]
    point = Point(at_angles(own, angles, lengths, random) if x is None else x, weight)
    if CASES[case].get("use_bias"):
        point.bias = np.linspace(-1, 1, CLASSES)
    if name == "ring":
        point.radius = np.array([4.0])
    if name in ("center", "git"):
        point.centers = random.randn(CLASSES, SIZE)
    if name == "curricularface":
        point.t = np.array([0.3])
    if name == "adacos":
        point.scale = np.array([5.0])
    if name == "adaface":
        point.lengths = np.array([5.0, 2.0])
    return to_float32(point)


def build(case, point, hybridize=False, **options):
    head = build_head(name_of(case), CLASSES, SIZE, **options, **CASES[case])
    head.initialize()
    fill(head, point)
    if hybridize:
        head.hybridize(static_alloc=True, static_shape=True)
    return head


def fill(head, point):
    found = head._collect_params_with_prefix()
    wanted = {k: v for k, v in vars(point).items() if v is not None and k != "x"}
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        found[key].set_data(mx.nd.array(value))


def states(head):
    return {
        key: parameter.data().asnumpy()
        for key, parameter in head._collect_params_with_prefix().items()
        if parameter.grad_req == "null"
    }


def run(head, point, label, fraction=None, upstream=None):
    """Run one training step; return loss, cosine and the gradients by name."""
    x = mx.nd.array(point.x)
    x.attach_grad()
    more = () if fraction is None else (mx.nd.array([fraction]),)
    with mx.autograd.record():
        loss, cosine = head(x, mx.nd.array(label), *more)
    loss.backward(None if upstream is None else mx.nd.array(upstream))
    found = {"loss": loss.asnumpy(), "cosine": cosine.asnumpy(), "x": x.grad.asnumpy()}
    for key, parameter in head._collect_params_with_prefix().items():
        if parameter.grad_req != "null":
            found[key] = parameter.grad().asnumpy()
    assert found["loss"].shape == found["cosine"].shape == label.shape
    return found


def in_training(case, point, label):
    """Return the point with the statistics that the loss of a training step uses."""
    point = copy.deepcopy(point)
    if name_of(case) in BEFORE:
        vars(point).update(BEFORE[name_of(case)](point, label, **CASES[case]))
    return point


def loss_of(case, point, label, fraction=1.0, held=None, training=True):
    if training:
        point = in_training(case, point, label)
    return LOSSES[name_of(case)](point, held or point, label, fraction, **CASES[case])


@functools.cache
def expected_gradients(case, fraction):
    """Return the oracle's gradients of the sum of losses, weighted by ``weights``."""
    point = in_training(case, inputs(case), LABEL)
    held, upstream = copy.deepcopy(point), weights()

    def total():
        return upstream @ loss_of(case, point, LABEL, fraction, held, training=False)

    arrays = {key: getattr(point, key) for key in TRAINED}
    return {k: numeric_gradient(total, a) for k, a in arrays.items() if a is not None}


def weights():
    return np.linspace(0.5, 1.5, BATCH).astype("f4").astype("f8")


def finite(found):
    return all(np.isfinite(array).all() for array in found.values())


@with_plain_operators
def test_every_head_has_an_oracle():
    assert set(HEADS) == set(LOSSES) == {name_of(case) for case in CASES}


@with_plain_operators
@pytest.mark.parametrize("name", LOSSES)
def test_the_default_settings_equal_those_of_the_oracle(name):
    def defaults(function):
        found = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}

    declared = {key: each.default for key, each in settings(HEADS[name]).items()}
    # The defaults of these settings do not change the loss; test_sharded.py tests them.
    off = {"sharded": False, "sample_rate": 1.0, "interclass_filter": 0.0}
    assert all(declared.pop(key) == off[key] for key in off.keys() & declared)
    assert declared == defaults(LOSSES[name])


@with_plain_operators
@pytest.mark.parametrize("name", LOSSES)
def test_initial_statistics_equal_those_of_the_papers(name):
    head = build_head(name, CLASSES, SIZE)
    head.initialize()
    found, expected = states(head), oracles.first_state(name, CLASSES, SIZE)
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-6)


@pytest.mark.parametrize("fraction", [None, 0.5], ids=["full margin", "half margin"])
@pytest.mark.parametrize("case", CASES)
def test_value_gradients_and_states(case, fraction):
    point, w = inputs(case), 1.0 if fraction is None else fraction
    head = build(case, point)
    found = run(head, point, LABEL, fraction, weights())
    expected = loss_of(case, point, LABEL, w)
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5, atol=1e-5)
    if "blocks" not in case:
        cosine = oracles.target_cosine(name_of(case), point, LABEL, **CASES[case])
        np.testing.assert_allclose(found["cosine"], cosine, atol=1e-6)
    gradients = expected_gradients(case, w)
    assert set(found) == {"loss", "cosine", *gradients}
    for key, array in gradients.items():
        limit = 2e-4 * abs(array).max()
        np.testing.assert_allclose(found[key], array, rtol=1e-3, atol=limit, err_msg=key)
    update = {**BEFORE, **AFTER}.get(name_of(case))
    if update:
        for key, value in update(point, LABEL, **CASES[case]).items():
            np.testing.assert_allclose(states(head)[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("case", STATISTICS)
def test_statistics_change_in_training_only(case, hybridize):
    point = inputs(case)
    head = build(case, point, hybridize)
    for _ in range(2):
        loss, _ = head(mx.nd.array(point.x), mx.nd.array(LABEL))
        expected = loss_of(case, point, LABEL, training=False)
        np.testing.assert_allclose(loss.asnumpy(), expected, rtol=1e-5, atol=1e-5)
        for key, value in states(head).items():
            np.testing.assert_array_equal(value, getattr(point, key).astype("f4"))
    found = run(head, point, LABEL)["loss"]
    np.testing.assert_allclose(found, loss_of(case, point, LABEL), rtol=1e-5, atol=1e-5)


@functools.cache
def every_degree(case):
    label, random = np.arange(180) % CLASSES, np.random.RandomState(1)
    point = inputs(case)
    own = point.weight[label * (rows_of(case) // CLASSES)]
    point.x = at_angles(own, np.radians(np.arange(180)) + 1e-3, np.full(180, 3.0), random)
    point = to_float32(point)
    return point, label, loss_of(case, point, label)


@pytest.mark.parametrize("case", WITH_CENTRES)
def test_value_at_every_degree(case):
    point, label, expected = every_degree(case)
    found = run(build(case, point), point, label)
    # arccos turns an error of 1e-7 in a cosine near 1 into one of 1e-7 / sin t in the angle
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-4, atol=5e-3)
    np.testing.assert_allclose(found["loss"][5:175], expected[5:175], rtol=1e-5, atol=2e-4)
    cosine = oracles.target_cosine(name_of(case), point, label, **CASES[case])
    np.testing.assert_allclose(found["cosine"], cosine, atol=1e-6)
    assert finite(found)
    if name_of(case) in ("range", "lgm"):
        return
    # At 3 degrees the true class wins clearly. oneDNN's logarithm near 1 and logits near 64 have
    # rounding errors of about 1e-6; a log-sum-exp that loses the leading digits fails here.
    point, random = inputs(case), np.random.RandomState(0)
    own = point.weight[LABEL * (rows_of(case) // CLASSES)]
    point.x = at_angles(own, np.full(BATCH, 0.05), np.full(BATCH, 3.0), random)
    point = to_float32(point)
    found, expected = run(build(case, point), point, LABEL), loss_of(case, point, LABEL)
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("case", [case for case in CASES if case.split()[0] in PAIRS])
def test_pairs_at_every_tenth_degree(case):
    label, random = np.array([0, 0, 6]), np.random.RandomState(2)
    for degree in range(0, 180, 10):
        x = random.randn(3, SIZE)
        x[1] = at_angles(x[:1], np.radians([degree + 0.1]), np.array([2.0]), random)[0]
        point = to_float32(Point(x))
        found = run(build(case, point), point, label)
        expected = loss_of(case, point, label)
        np.testing.assert_allclose(found["loss"], expected, rtol=2e-5, atol=2e-4)
        assert finite(found)


@pytest.mark.parametrize("case", CASES)
def test_hybridized_equals_imperative_through_changing_fractions(case):
    heads = [build(case, inputs(case), hybridize) for hybridize in (False, True)]
    for step, fraction in enumerate((None, 0.0, 0.5, 1.0, None)):
        point = inputs(case, seed=step)
        for head in heads:
            fill(head, point)
        plain, hybrid = (run(head, point, LABEL, fraction) for head in heads)
        for key in plain:
            np.testing.assert_allclose(hybrid[key], plain[key], rtol=1e-5, atol=2e-6, err_msg=key)
        for key, value in states(heads[0]).items():
            np.testing.assert_allclose(states(heads[1])[key], value, rtol=1e-6)


def check_loss(case, point, label, rtol, atol, message):
    """Compare one training step with the oracle; return its results."""
    found = run(build(case, point), point, label)
    assert finite(found), message
    expected = loss_of(case, point, label)
    np.testing.assert_allclose(found["loss"], expected, rtol=rtol, atol=atol, err_msg=message)
    return found


@pytest.mark.parametrize("case", CASES)
def test_equal_opposite_and_single_images(case):
    point = inputs(case)
    point.x[1], point.x[2], point.x[4], point.x[7] = (
        point.x[0],  # the same person twice
        -point.x[0],  # and opposite
        point.x[0],  # two people alike
        -point.x[0],
    )
    assert finite(run(build(case, point), point, LABEL)), "images"
    if "blocks" not in case:
        for label in (np.array([0]), np.array([CLASSES - 1])):
            point = inputs(case, label=label)
            check_loss(case, point, label.astype("i4"), 1e-5, 1e-5, f"one image of {label}")
    if case not in WITH_CENTRES:
        return
    point = inputs(case)
    point.weight[1], point.weight[2], point.weight[-1] = point.weight[0], -point.weight[0], 0
    assert finite(run(build(case, point), point, LABEL)), "centres"
    point = inputs(case)
    side = np.where(np.arange(BATCH) % 2, 3.0, -3.0)
    point.x = point.weight[LABEL * (rows_of(case) // CLASSES)] * side[:, None]
    found = check_loss(case, to_float32(point), LABEL, 1e-4, 1e-2, "at or opposite the centre")
    # The slopes near +-1 are large, but the normalisation cancels them.
    assert abs(found["x"]).max() < 10 * max(CASES[case].get("scale", 64.0), 4)


@pytest.mark.parametrize("case", CASES)
def test_labels_of_one_person_of_distinct_people_and_of_a_smaller_batch(case):
    head = build(case, inputs(case), hybridize=True)
    labels = (LABEL, np.zeros(BATCH, "i8"), LABEL, np.arange(CLASSES), LABEL, LABEL[:9], LABEL)
    for seed, label in enumerate(labels):
        if "blocks" in case:
            label = label[: len(label) // 3 * 3]
        point = inputs(case, seed, label=label)
        fill(head, point)
        found, expected = run(head, point, label), loss_of(case, point, label)
        message = f"labels {label}"
        np.testing.assert_allclose(found["loss"], expected, rtol=1e-5, atol=1e-5, err_msg=message)
        assert finite(found), message


@pytest.mark.parametrize("case", CASES)
def test_embeddings_of_very_small_large_and_zero_length(case):
    # A length is sqrt(sum of squares + 1e-10), which matters for the smallest ones.
    for factor in (1e-5, 1e-3, 10.0):
        point = inputs(case)
        point.x *= factor
        check_loss(case, to_float32(point), LABEL, 2e-5, 2e-5, f"times {factor}")
    point = inputs(case)
    for rows in ([0], [0, 1, 7], range(BATCH)):
        point.x[rows] = 0.0
        check_loss(case, point, LABEL, 1e-4, 1e-3, f"zero rows {rows}")


EASY = ("arcface", {"easy_margin": True})
# name, neutral settings, parent, settings of the parent
PARENTS = [
    ("l2_softmax", {"scale": 6.0, "use_bias": False}, "l2_softmax", {"scale": 6.0}),
    ("sphereface", {"m1": 1.0}, "normface", {}),
    ("cosface", {"m3": 0.0}, "normface", {}),
    ("arcface", {"m2": 0.0}, "normface", {}),
    ("combined", {"m1": 1.0, "m2": 0.0, "m3": 0.0}, "normface", {}),
    ("combined", {"m1": 1.0, "m2": 0.3, "m3": 0.0}, "arcface", {"m2": 0.3}),
    ("sv_softmax", {"t": 1.0, "m3": 0.0}, "normface", {}),
    ("sv_softmax", {"t": 1.0, "m3": 0.2}, "cosface", {"m3": 0.2}),
    ("sv_softmax", {"t": 1.0, "m2": 0.5, "m3": 0.0, "easy_margin": True}, *EASY),
    ("sub_center_arcface", {"sub_centers": 1, "m2": 0.5}, "arcface", {}),
    ("sub_center_arcface", {"sub_centers": 1, "m2": 0.0}, "normface", {}),
    ("sub_center_arcface", {"sub_centers": 1, "easy_margin": True}, *EASY),
    ("adaface", {"m": 0.0}, "normface", {}),
    ("magface", {**MAGFACE, "least": 0.5, "most": 0.5, "length_weight": 0.0}, "arcface", {}),
    (
        "magface",
        {**MAGFACE, "least": 0.5, "most": 0.5, "length_weight": 0.0, "easy_margin": True},
        *EASY,
    ),
    ("elasticface", {"sigma": 0.0}, "arcface", {}),
    ("elasticface", {"m2": 0.0, "sigma": 0.0}, "normface", {}),
    ("intra", {"intra_weight": 0.0}, "arcface", {}),
    ("inter", {"inter_weight": 0.0}, "arcface", {}),
    ("coco", {"scale": 16.0}, "normface", {"scale": 16.0}),
    ("center", {"center_weight": 0.0}, "softmax", {}),
    ("git", {"git_weight": 0.0}, "center", {}),
    ("ring", {"ring_weight": 0.0}, "softmax", {}),
    ("range", {"intra_weight": 0.0, "inter_weight": 0.0}, "softmax", {}),
    ("marginal", {"marginal_weight": 0.0}, "softmax", {}),
]
WITHOUT_MARGIN = {  # name -> settings, loss that equals it at a margin fraction of 0, its settings
    "sphereface": ({}, "normface", {}),
    "a_softmax": ({}, "a_softmax", {"m1": 1}),
    "cosface": ({}, "normface", {}),
    "arcface": ({}, "normface", {}),
    "combined": ({}, "normface", {}),
    "sv_softmax": ({}, "normface", {}),
    "sub_center_arcface": ({"sub_centers": 1}, "normface", {}),
    "curricularface": ({}, "normface", {}),
    "adaface": ({}, "normface", {}),
    "magface": ({**MAGFACE, "length_weight": 0.0}, "normface", {}),
    "elasticface": ({}, "normface", {}),
    "intra": ({}, "intra", {"m2": 0.0}),
    "inter": ({}, "inter", {"m2": 0.0}),
    "lgm": ({}, "lgm", {"alpha": 0.0}),
}


def step_of(name, settings, point, fraction=None):
    head = build_head(name, CLASSES, SIZE, **settings)
    head.initialize()
    found = head._collect_params_with_prefix()
    found["weight"].set_data(mx.nd.array(point.weight))
    return run(head, point, LABEL, fraction)


def equal(ours, parent):
    for key in ("loss", "cosine", "x", "weight"):
        limit = 2e-6 * max(1, abs(parent[key]).max())
        np.testing.assert_allclose(ours[key], parent[key], rtol=1e-5, atol=limit, err_msg=key)


@pytest.mark.parametrize(("name", "settings", "parent", "theirs"), PARENTS)
def test_neutral_settings_give_the_parent_loss(name, settings, parent, theirs):
    point = inputs("normface")
    equal(step_of(name, settings, point), step_of(parent, theirs, point))


@pytest.mark.parametrize("name", WITHOUT_MARGIN)
def test_a_margin_fraction_of_0_gives_the_parent_loss(name):
    settings, parent, theirs = WITHOUT_MARGIN[name]
    point = inputs("normface")
    equal(step_of(name, settings, point, 0.0), step_of(parent, theirs, point))


def test_neutral_settings_give_related_losses():
    point = inputs("normface")
    # a_softmax with m1 = 1 is the softmax with normalised centres.
    units = Point(point.x, oracles.unit(point.weight))
    ours, parent = step_of("a_softmax", {"m1": 1}, point), step_of("softmax", {}, units)
    for key in ("loss", "cosine", "x"):
        np.testing.assert_allclose(ours[key], parent[key], rtol=2e-5, atol=1e-5)
    # lgm with alpha = 0 is the softmax with the bias -|w|^2 / 2.
    ours = step_of("lgm", {"alpha": 0.0, "likelihood_weight": 0.0}, point)
    biased = copy.copy(point)
    biased.bias = -(point.weight**2).sum(1) / 2
    expected = oracles.softmax(biased, biased, LABEL, 1.0)
    np.testing.assert_allclose(ours["loss"], expected, rtol=2e-5, atol=1e-5)
    # adacos outside training is normface with the same scale.
    head = build("adacos", inputs("adacos"))
    loss, _ = head(mx.nd.array(point.x), mx.nd.array(LABEL))
    fixed = build_head("normface", CLASSES, SIZE, scale=5.0)
    fixed.initialize()
    fixed.weight.set_data(head.weight.data())
    parent, _ = fixed(mx.nd.array(point.x), mx.nd.array(LABEL))
    np.testing.assert_allclose(loss.asnumpy(), parent.asnumpy(), rtol=1e-5, atol=1e-5)


class Ranks:
    """Two ranks as threads, whose ``reduce`` concatenates the rows of both."""

    def __init__(self):
        self.rows, self.barrier = [None, None], threading.Barrier(2, timeout=120)

    def reduce_of(self, rank):
        def reduce(rows, by):
            self.rows[rank] = rows
            self.barrier.wait()
            joined = mx.nd.concat(*self.rows, dim=0)
            self.barrier.wait()  # both have read
            return by(joined)

        return reduce

    def run(self, work):
        """Return [work(0), work(1)], computed at the same time."""
        found = [None, None]

        def one(rank):
            try:
                found[rank] = work(rank)
            except BaseException as error:
                found[rank] = error
                self.barrier.abort()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in found:
            if isinstance(result, BaseException) and not isinstance(
                result, threading.BrokenBarrierError
            ):
                raise result
        return found


HALVES = (slice(0, BATCH // 2), slice(BATCH // 2, BATCH))
SHUFFLED = np.random.RandomState(4).permutation(LABEL)  # both ranks have images of a person


def half(point, part):
    point = copy.copy(point)
    point.x = point.x[part]
    return point


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("case", STATISTICS)
def test_two_ranks_have_the_statistics_of_one(case, hybridize):
    ranks, point = Ranks(), inputs(case, label=SHUFFLED)
    whole = build(case, point, hybridize)
    parts = [build(case, point, hybridize, reduce=ranks.reduce_of(rank)) for rank in range(2)]
    for step in range(3):
        point.x = inputs(case, seed=step, label=SHUFFLED).x
        one = run(whole, point, SHUFFLED)
        two = ranks.run(lambda r: run(parts[r], half(point, HALVES[r]), SHUFFLED[HALVES[r]]))
        used = in_training(case, point, SHUFFLED)
        for part, found in zip(HALVES, two):
            expected = loss_of(case, half(used, part), SHUFFLED[part], training=False)
            np.testing.assert_allclose(found["loss"], expected, rtol=1e-5, atol=1e-5)
        if name_of(case) != "git":  # its pairs are those of one rank
            for key in ("loss", "x"):
                joined = np.concatenate([found[key] for found in two])
                np.testing.assert_allclose(joined, one[key], rtol=1e-4, atol=1e-5)
            total = two[0]["weight"] + two[1]["weight"]
            np.testing.assert_allclose(total, one["weight"], rtol=1e-4, atol=1e-4)
        update = {**BEFORE, **AFTER}[name_of(case)]
        vars(point).update(update(point, SHUFFLED, **CASES[case]))
        for head in (whole, *parts):
            for key, value in states(head).items():
                np.testing.assert_allclose(value, getattr(point, key), rtol=1e-5, atol=1e-6)


@with_plain_operators
@pytest.mark.parametrize("case", [case for case in CASES if case not in STATISTICS])
def test_losses_without_statistics_average_over_ranks(case):
    def never(rows, by):
        raise AssertionError("these losses keep no statistics")

    point, means = inputs(case, label=SHUFFLED), []
    for part in HALVES:
        rank = half(point, part)
        means.append(run(build(case, rank, reduce=never), rank, SHUFFLED[part])["loss"].mean())
    expected = np.mean([loss_of(case, half(point, p), SHUFFLED[p]).mean() for p in HALVES])
    assert math.isclose(np.mean(means), expected, rel_tol=1e-5, abs_tol=1e-6)


def test_the_scale_of_adacos_stays_positive():
    head = build_head("adacos", 3, 2)
    head.initialize()
    head.weight.set_data(mx.nd.array([[1, 0], [-1, 0], [-1, 0]]))
    for _ in range(2):  # all other centres are opposite
        with mx.autograd.record():
            loss, cosine = head(mx.nd.array([[3, 0]]), mx.nd.array([0]))
        assert head.scale.data().asscalar() > 0
        assert np.isfinite([loss.asscalar(), cosine.asscalar()]).all()


@pytest.mark.parametrize("name", [name for name in HEADS if "scale" in settings(HEADS[name])])
def test_the_gradient_is_bounded_at_cosines_of_1_and_minus_1(name):
    point = inputs("normface")
    point.x = point.weight[LABEL] * np.where(np.arange(BATCH) < BATCH // 2, 3.0, -3.0)[:, None]
    for scale in (64.0, 256.0):
        head = build_head(name, CLASSES, SIZE, scale=scale)
        head.initialize()
        several = head.weight.shape[0] // CLASSES
        head.weight.set_data(mx.nd.array(point.weight.repeat(several, axis=0)))
        found = run(head, point, LABEL)
        assert finite(found)
        np.testing.assert_allclose(abs(found["cosine"]), 1.0, atol=1e-6)
        # Slopes near +-1 are large, but the normalisation cancels them: a gradient exceeds
        # scale * slope * sin t / length by a small factor only.
        assert abs(found["x"]).max() < 10 * scale


@pytest.mark.parametrize("name", HEADS)
def test_inputs_are_unchanged_and_labels_may_be_integers(name):
    case = next(case for case in CASES if name_of(case) == name and "blocks" not in case)
    point = inputs(case)
    head = build(case, point)
    arrays = mx.nd.array(point.x), mx.nd.array(LABEL, dtype="int32"), mx.nd.ones((1,))
    before = [array.asnumpy() for array in arrays]
    arrays[0].attach_grad()
    with mx.autograd.record():
        loss, _ = head(*arrays)
    loss.backward()
    for array, same in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array.asnumpy(), same)
    np.testing.assert_array_equal(loss.asnumpy(), run(build(case, point), point, LABEL)["loss"])


@pytest.mark.parametrize("case", ["softmax", "arcface", "lgm", "triplet"])
def test_no_gradient_flows_through_the_logged_cosine(case):
    gradients = []
    for factor in (0.0, 1000.0):
        point = inputs(case)
        head, x = build(case, point), mx.nd.array(point.x)
        x.attach_grad()
        with mx.autograd.record():
            loss, cosine = head(x, mx.nd.array(LABEL))
            total = loss + factor * cosine
        total.backward()
        gradients.append(x.grad.asnumpy())
    np.testing.assert_array_equal(*gradients)
