# SPDX-License-Identifier: Apache-2.0
"""Bootstrap over people against known intervals."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.bootstrap import find_correct_pairs, paired_difference
from evaluation.verification import verify


def test_correct_pairs_give_the_accuracy_of_verify():
    generator = np.random.default_rng(0)
    issame = generator.random(83) < 0.5
    one = generator.normal(size=(83, 6))
    two = np.where(issame[:, None], one, 0) + generator.normal(size=one.shape)
    embeddings = np.stack([one, two], axis=1).reshape(-1, 6)
    right = find_correct_pairs(embeddings, issame, nfolds=10)
    means = [part.mean() for part in np.array_split(right, 10)]
    assert np.mean(means) == pytest.approx(verify(embeddings, issame)["accuracy"], abs=1e-12)


def test_the_interval_of_independent_pairs_is_that_of_the_binomial():
    generator = np.random.default_rng(1)
    base, other = generator.random(400) < 0.6, generator.random(400) < 0.8
    people = np.arange(400).repeat(2)  # pairs of one person each
    found = paired_difference(base, other, people, draws=4000)
    gain = other.astype(float) - base
    spread = 1.96 * gain.std() / np.sqrt(400)
    assert found.difference == pytest.approx(gain.mean()) and found.people == 400
    assert found.low == pytest.approx(gain.mean() - spread, abs=0.1 * spread)
    assert found.high == pytest.approx(gain.mean() + spread, abs=0.1 * spread)


def test_pairs_of_few_people_widen_the_interval():
    generator = np.random.default_rng(2)
    gain_of_person = generator.random(20) < 0.5  # all pairs of a person have the same gain
    people = np.arange(20).repeat(40)
    other = gain_of_person[people[0::2]]
    base = np.zeros_like(other)
    few = paired_difference(base, other, people, draws=2000)
    many = paired_difference(base, other, np.arange(400).repeat(2), draws=2000)
    assert few.high - few.low > 3 * (many.high - many.low)


def test_a_network_is_not_better_than_itself():
    right = np.arange(60) % 3 > 0
    generator = np.random.default_rng(3)
    found = paired_difference(right, right, generator.integers(0, 9, 120), draws=50)
    assert found[:3] == (0, 0, 0)
