# SPDX-License-Identifier: Apache-2.0
"""The search finds the feed rate of simulated loaders."""

from __future__ import annotations

import pytest

from benchmarks.harness.feed_search import (
    MAX_INTERVAL_FACTOR,
    MAX_WAITING_FRACTION,
    PRECISION_FRACTION,
    Trial,
    search,
)

BATCH_S, BATCHES = 0.02, 20


def no_prefetch(interval: float) -> float:
    return BATCH_S


def prefetched(interval: float) -> float:
    return max(0.0, BATCH_S - interval)


def partly_prefetched(interval: float) -> float:
    return max(BATCH_S / 5, BATCH_S - interval)


def always(interval: float) -> float:
    return BATCH_S + interval / 2


class Stub:
    """Device with a known wait for each batch; it records its trials."""

    def __init__(self, wait):
        self.wait, self.seen = wait, []

    def __call__(self, interval: float) -> Trial:
        waited = self.wait(interval)
        found = Trial(interval, BATCHES * waited, BATCHES * (waited + interval), BATCHES)
        self.seen.append(found)
        return found


def test_the_waiting_fraction_and_batch_seconds_of_a_trial():
    found = Trial(interval=0.09, waited=0.1, elapsed=1.0, batches=10)
    assert found.waiting_fraction == 0.1 and found.batch_s == 0.1


@pytest.mark.parametrize("first", [0.5, 1 - MAX_WAITING_FRACTION, 1.0, 3.0, 40.0])
@pytest.mark.parametrize(
    "wait, interval",
    [
        (prefetched, (1 - MAX_WAITING_FRACTION) * BATCH_S),
        (no_prefetch, BATCH_S * (1 - MAX_WAITING_FRACTION) / MAX_WAITING_FRACTION),
        (partly_prefetched, BATCH_S / 5 * (1 - MAX_WAITING_FRACTION) / MAX_WAITING_FRACTION),
    ],
)
def test_the_shortest_interval_is_found(wait, interval, first):
    stub = Stub(wait)
    found = search(stub, first * BATCH_S)
    assert found in stub.seen and found.waiting_fraction < MAX_WAITING_FRACTION
    assert interval * (1 - 1e-9) <= found.interval <= interval * (1 + PRECISION_FRACTION)
    assert len(stub.seen) <= 20


def test_a_loader_without_prefetch_needs_few_trials():
    stub = Stub(no_prefetch)
    search(stub, BATCH_S)
    assert len(stub.seen) <= 4


def test_a_coarser_search_takes_fewer_trials():
    fine, coarse = Stub(partly_prefetched), Stub(partly_prefetched)
    best, rough = search(fine, BATCH_S), search(coarse, BATCH_S, precision=0.2)
    assert len(coarse.seen) < len(fine.seen)
    assert best.interval / 1.2 <= rough.interval <= best.interval * 1.2


def test_a_search_out_of_time_returns_the_interval_that_passed():
    stub = Stub(partly_prefetched)
    found = search(stub, BATCH_S, out_of_time=lambda: True)
    assert found is stub.seen[-1] and found.waiting_fraction < MAX_WAITING_FRACTION


def test_a_device_that_always_waits_has_no_feed_rate():
    stub = Stub(always)
    assert search(stub, BATCH_S) is None
    assert max(trial.interval for trial in stub.seen) == MAX_INTERVAL_FACTOR * BATCH_S


def test_a_search_ends_if_the_device_never_waits():
    assert search(Stub(lambda interval: 0.0), BATCH_S).interval < 2 * BATCH_S / MAX_INTERVAL_FACTOR


def test_a_trial_that_failed_by_noise_is_repeated():
    def noisy(interval: float) -> float:
        failed = len(stub.seen) in (0, 3)  # the first trial, and one before convergence
        return interval if failed else prefetched(interval)

    stub = Stub(noisy)
    found = search(stub, (1 - MAX_WAITING_FRACTION) * BATCH_S)
    assert found.interval <= (1 - MAX_WAITING_FRACTION) * BATCH_S * (1 + PRECISION_FRACTION)
