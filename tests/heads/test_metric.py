# SPDX-License-Identifier: Apache-2.0
"""Pair and triplet losses against float64 oracles that go through pairs one by one."""

from __future__ import annotations

import math

import mxnet as mx
import numpy as np
import pytest

from heads import build_head, mining
from heads.metric import check_batches
from tests.heads.test_heads import numeric_gradient

LABEL = np.array([3, 0, 3, 6, 0, 3, 1, 6, 0])  # 1 is alone
# name of the case -> (head, settings)
CASES = {
    "contrastive": ("contrastive", {"margin": 1.2}),
    "triplet": ("triplet", {"margin": 0.4}),
    "triplet hard": ("triplet", {"margin": 0.4, "mining": "hard"}),
    "triplet blocks": ("triplet", {"margin": 1.5, "mining": "blocks"}),
    "angular": ("angular_triplet", {}),
    "angular hard": ("angular_triplet", {"mining": "hard"}),
    "angular blocks": ("angular_triplet", {"margin": 1.0, "mining": "blocks"}),
    "n_pair": ("n_pair", {"length_weight": 0.01}),
    "mps": ("mps", {}),
}
MARGINS = {"triplet": 0.3, "angular_triplet": 0.35, "mps": 0.5}


def oracle(case, x, label, fraction=1.0):
    """Loss per image and mean cosine to the positives, from the equations."""
    name, settings = CASES[case]
    margin = fraction * settings.get("margin", MARGINS.get(name, 0))
    unit = x / np.sqrt((x**2).sum(1, keepdims=True) + 1e-10)
    count = len(label)

    def d(i, j):
        if name == "angular_triplet":
            return math.acos(max(-1 + 1e-7, min(1 - 1e-7, unit[i] @ unit[j])))
        return ((unit[i] - unit[j]) ** 2).sum()

    losses, cosines = np.zeros(count), np.zeros(count)
    for i in range(count):
        positives = [j for j in range(count) if j != i and label[j] == label[i]]
        negatives = [j for j in range(count) if label[j] != label[i]]
        cosines[i] = np.mean([unit[i] @ unit[p] for p in positives]) if positives else 0
        terms = []
        if name == "contrastive":
            terms = [d(i, p) / 2 for p in positives]
            terms += [max(0, margin - math.sqrt(d(i, n) + 1e-10)) ** 2 / 2 for n in negatives]
        elif name == "n_pair" and positives:
            for p in positives:
                total = sum(math.exp(x[i] @ x[n] - x[i] @ x[p]) for n in negatives)
                terms.append(math.log(1 + total) + settings["length_weight"] * (x[i] ** 2).sum())
        elif name == "mps" and negatives:
            rival = {k: max(unit[k] @ unit[n] for n in negatives) for k in (i, *positives)}
            terms = [
                max(0, max(rival[i], rival[p]) - unit[i] @ unit[p] + margin) for p in positives
            ]
        elif settings.get("mining") == "blocks":
            third = count // 3
            if i < third:
                terms = [3 * max(0, d(i, third + i) - d(i, 2 * third + i) + margin)]
        elif settings.get("mining") == "hard" and positives and negatives:
            near, far = max(d(i, p) for p in positives), min(d(i, n) for n in negatives)
            terms = [max(0, near - far + margin)]
        elif name.endswith("triplet") and negatives:
            for p in positives:
                beyond = [d(i, n) for n in negatives if d(i, n) > d(i, p)]
                far = min(beyond) if beyond else max(d(i, n) for n in negatives)
                terms.append(max(0, d(i, p) - far + margin))
        losses[i] = np.mean(terms) if terms else 0
    return losses, cosines


def embeddings(seed=0, label=LABEL, size=4):
    """Embeddings of people that lie apart, but not by much."""
    random = np.random.RandomState(seed)
    person = {y: random.randn(size) for y in sorted(set(label))}
    x = np.array([person[y] for y in label]) * 0.7 + random.randn(len(label), size) * 0.6
    return x.astype("f4").astype("f8")


def made(case, hybridize=False):
    name, settings = CASES[case]
    head = build_head(name, 10, 4, **settings)
    head.initialize()
    if hybridize:
        head.hybridize(static_alloc=True, static_shape=True)
    assert not list(head.collect_params())
    return head


def run(head, x, label, *fraction):
    embedding = mx.nd.array(x)
    embedding.attach_grad()
    upstream = mx.nd.array(np.linspace(0.5, 1.5, len(label)))
    with mx.autograd.record():
        loss, cosine = head(embedding, mx.nd.array(label), *fraction)
    loss.backward(upstream)
    return [a.asnumpy() for a in (loss, cosine, embedding.grad)]


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize(("seed", "fraction"), [(0, 1.0), (1, 0.5)])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_against_the_equations(case, seed, fraction, hybridize):
    x, weights = embeddings(seed), np.linspace(0.5, 1.5, len(LABEL))
    loss, cosine, gradient = run(made(case, hybridize), x, LABEL, mx.nd.array([fraction]))
    expected, expected_cosine = oracle(case, x, LABEL, fraction)
    assert np.count_nonzero(expected) > 1
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(cosine, expected_cosine, atol=1e-6)
    numeric = numeric_gradient(lambda: (oracle(case, x, LABEL, fraction)[0] * weights).sum(), x)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=1e-4 * abs(numeric).max())


@pytest.mark.parametrize("case", CASES)
def test_many_sizes_go_through_one_head_and_labels_may_be_whole_numbers(case):
    head = made(case, hybridize=True)
    for count in (3, 9, 6):
        label = np.arange(count) // 2
        x = embeddings(2, label)
        loss = head(mx.nd.array(x), mx.nd.array(label, dtype="int32"))[0].asnumpy()
        np.testing.assert_allclose(loss, oracle(case, x, label)[0], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_edges_are_finite(case):
    x = embeddings()
    opposite = np.tile(x[:1], (9, 1)) * np.resize([1.0, -2.0, 3.0], 9)[:, None]
    blocks = "blocks" in case
    for found, label in (
        (x * 0, LABEL),
        (np.concatenate([x[:4], x[:4] * 0, x[:1]]), LABEL),
        (np.tile(x[:1], (9, 1)), LABEL),  # everybody at one place
        (opposite, LABEL),  # cosines of 1 and -1
        (x * 30, LABEL),
        (x, LABEL * 0),  # one person
        (x, np.arange(9)),  # nobody twice
        (x[:3] if blocks else x[:1], LABEL[: 3 if blocks else 1]),
    ):
        arrays = run(made(case), found, label)
        assert all(np.isfinite(a).all() for a in arrays)
    if not blocks:
        assert all((a == 0).all() for a in arrays)  # nothing to compare a lone image with
        alone = run(made(case), x, np.arange(9))
        if case != "contrastive":
            assert all((a == 0).all() for a in alone)


def test_mined_triplets_are_those_of_a_search_through_all():
    random = np.random.RandomState(5)
    label = random.randint(0, 12, 60)
    distance = random.rand(60, 60)
    distance[:, 7] = distance[:, 8]  # the same image twice
    positive, negative = mining.pairs(mx.nd, mx.nd.array(label))
    given = mx.nd.array(distance)
    beyond = mining.semi_hard(mx.nd, given, positive, negative).asnumpy()
    near, far = (a.asnumpy() for a in mining.hardest(mx.nd, given, positive, negative))
    distance, fallbacks = distance.astype("f4"), 0
    for i in range(60):
        others = distance[i, label != label[i]]
        own = [j for j in range(60) if label[j] == label[i] and j != i]
        assert (positive.asnumpy()[i].nonzero()[0] == own).all()
        assert far[i] == others.min()
        assert not own or near[i] == distance[i, own].max()
        for p in own:
            after = others[others > distance[i, p]]
            fallbacks += not len(after)
            assert beyond[i, p] == (after.min() if len(after) else others.max())
    assert fallbacks > 2


def test_the_mean_of_blocks_is_the_mean_of_the_triplets():
    x = embeddings()
    loss = run(made("triplet blocks"), x, LABEL)[0]
    assert (loss[3:] == 0).all() and loss.mean() == pytest.approx(loss[:3].mean() / 3)
    with pytest.raises(ValueError) as refused:
        run(made("triplet blocks"), x[:8], LABEL[:8])
    assert str(refused.value) == (
        "head.mining: 'blocks' takes anchors, positives and negatives of one number, got a batch "
        "of 8; use a multiple of 3"
    )


@pytest.mark.parametrize("case", CASES)
def test_each_step_against_the_gradient_lowers_the_loss(case):
    head, x = made(case), embeddings()
    before = run(head, x, LABEL)[0].mean()
    for _ in range(5):
        x -= 0.05 * run(head, x, LABEL)[2]
    assert run(head, x, LABEL)[0].mean() < before


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("contrastive", {"margin": 0}, "head.margin: must be a number above 0 up to 2, got 0"),
        ("triplet", {"margin": "1e-1"}, "head.margin: must be a number above 0 up to 4, got '1e"),
        ("triplet", {"mining": "easy"}, "head.mining: must be one of 'semi_hard', 'hard', 'bl"),
        ("angular_triplet", {"margin": 4}, "head.margin: must be a number above 0 up to 3.14159"),
        ("n_pair", {"length_weight": -1}, "head.length_weight: must be a number from 0, got -1"),
        ("mps", {"margin": 3}, "head.margin: must be a number above 0 up to 2, got 3"),
        ("mps", {"scale": 3}, "head.scale: no setting of head 'mps'; known: margin"),
    ],
)
def test_refusals(name, settings, sentence):
    with pytest.raises(ValueError) as refused:
        build_head(name, 3, 4, **settings)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("name", "choice", "data", "sentence"),
    [
        ("arcface", "", (False, 0), ""),
        ("mps", "", (True, 0), ""),
        ("triplet", "blocks", (True, 7200), ""),
        (
            "range",
            "",
            (False, 0),
            "head.name: 'range' compares images of one person",
        ),
        (
            "marginal",
            "",
            (False, 0),
            "head.name: 'marginal' compares images of one person",
        ),
        (
            "triplet",
            "hard",
            (False, 0),
            "head.name: 'triplet' compares images of one person",
        ),
        (
            "triplet",
            "blocks",
            (True, 0),
            "head.mining: 'blocks' takes triplets chosen from a bag, got",
        ),
        (
            "triplet",
            "hard",
            (True, 60),
            "data.bag: chooses the triplets of a head",
        ),
        (
            "arcface",
            "",
            (True, 60),
            "data.bag: chooses the triplets of a head",
        ),
    ],
)
def test_batches_without_pairs_are_refused(name, choice, data, sentence):
    if not sentence:
        check_batches(name, choice, *data)
        return
    with pytest.raises(ValueError) as refused:
        check_batches(name, choice, *data)
    assert str(refused.value).startswith(sentence) and "; " in str(refused.value)
