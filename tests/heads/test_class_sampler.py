# SPDX-License-Identifier: Apache-2.0
"""Samples of classes: positives always, negatives equally often, a state of two numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from heads.class_sampler import ClassSampler


def sampler(num_classes=100, rate=0.2, seed=3, rank=0):
    return ClassSampler(num_classes, rate, seed=seed, rank=rank)


@pytest.mark.parametrize("labels", [[], [0], [99], [5, 5, 60], list(range(0, 100, 7))])
def test_a_sample_holds_all_positives_and_has_a_fixed_size(labels):
    source = sampler()
    for _ in range(20):
        sample = source.draw(np.array([*labels, -1, 100, 10**9, -(10**9)]))  # of other shards
        assert set(labels) <= set(sample.tolist())
        assert len(sample) == len(set(sample.tolist())) == 20
        assert sample.dtype == np.int32 and (np.diff(sample) > 0).all()
        assert 0 <= sample[0] and sample[-1] < 100


def test_more_positives_than_the_rate_allows_are_all_sampled():
    positives = np.arange(0, 100, 2)
    assert (sampler(rate=0.1).draw(positives) == positives).all()


def test_every_other_class_is_sampled_equally_often():
    # 97 classes without an image in 27 strata of 3 or 4 classes.
    source, counts, draws = sampler(rate=0.3), np.zeros(100), 4000
    for _ in range(draws):
        counts[source.draw(np.array([0, 50, 99]))] += 1
    expected = draws * 27 / 97
    others = np.delete(counts, [0, 50, 99])
    assert (counts[[0, 50, 99]] == draws).all()
    assert abs(others - expected).max() < 6 * np.sqrt(expected)


def test_a_restored_state_continues_the_samples():
    source, labels = sampler(), np.array([4, 8])
    first = [source.draw(labels) for _ in range(3)]
    state = json.loads(json.dumps(source.state))
    later = [source.draw(labels) for _ in range(3)]
    other = sampler(seed=0)
    other.load_state(state)
    assert all((a == b).all() for a, b in zip(later, map(other.draw, [labels] * 3), strict=True))
    assert any((a != b).any() for a, b in zip(first, later, strict=True))


def test_ranks_draw_different_samples_and_have_equal_states():
    one, two = sampler(rank=0), sampler(rank=1)
    assert (one.draw(np.array([])) != two.draw(np.array([]))).any()
    assert one.state == two.state


def test_a_rate_above_zero_samples_at_least_one_class():
    assert len(sampler(num_classes=3, rate=0.001).draw(np.array([], np.int32))) == 1
