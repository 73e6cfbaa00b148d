# SPDX-License-Identifier: Apache-2.0
"""Coverage of the bootstrap's intervals, on simulated sets whose true difference is known."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.bootstrap import paired_difference
from evaluation.pairs import Pairs
from evaluation.people import find_groups

SETS = 100


def simulate(generator, people, pairs, deviation):
    """Score two networks whose true accuracies are equal; half of the pairs show one person.

    Each person favours one network: the chance of a correct decision is (1 + e) / 2 for one network
    and (1 - e) / 2 for the other, with e drawn once per person.
    """
    favour = generator.normal(0, deviation, people)
    issame = np.arange(pairs) % 2 == 0
    one = generator.integers(0, people, pairs)
    two = np.where(issame, one, (one + generator.integers(1, people, pairs)) % people)
    effect = (favour[one] + favour[two]) / 2
    base = generator.random(pairs) < (1 - effect) / 2
    other = generator.random(pairs) < (1 + effect) / 2
    return base, other, np.stack([one, two], axis=1).reshape(-1), issame


def coverage(people, pairs, deviation, find):
    """Return the fraction of simulated sets whose 95 % interval contains the difference 0."""
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(SETS):
        base, other, numbers, issame = simulate(generator, people, pairs, deviation)
        found = paired_difference(base, other, find(numbers, issame), draws=150)
        covered += found.low <= 0 <= found.high
    return covered / SETS


def of_people(numbers, issame):
    return numbers


def of_groups(numbers, issame):
    """Link images as a set without names does; no image is in two pairs."""
    return find_groups(Pairs([index.to_bytes(2, "big") for index in range(len(numbers))], issame))


@pytest.mark.parametrize("deviation", [0.0, 0.3])
def test_intervals_over_people_cover_the_true_difference(deviation):
    assert coverage(67, 300, deviation, of_people) >= 0.94


def test_intervals_over_linked_groups_are_too_narrow_for_few_people():
    assert coverage(20, 400, 0.4, of_people) >= 0.88
    assert coverage(20, 400, 0.4, of_groups) <= 0.8
