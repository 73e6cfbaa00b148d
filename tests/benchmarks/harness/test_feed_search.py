# SPDX-License-Identifier: Apache-2.0
"""The feed rate of loaders whose speed is known is found."""

from __future__ import annotations

import pytest

from benchmarks.harness.feed_search import PRECISION, SHARE, SPAN, Probe, search

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
    """Takes batches from a loader with a known wait for each; keeps the probes."""

    def __init__(self, wait):
        self.wait, self.seen = wait, []

    def __call__(self, interval: float) -> Probe:
        waited = self.wait(interval)
        found = Probe(interval, BATCHES * waited, BATCHES * (waited + interval), BATCHES)
        self.seen.append(found)
        return found


def test_the_share_that_is_waited():
    found = Probe(interval=0.09, waited=0.1, elapsed=1.0, batches=10)
    assert found.share == 0.1 and found.batch_s == 0.1


@pytest.mark.parametrize("first", [0.5, 1 - SHARE, 1.0, 3.0, 40.0])
@pytest.mark.parametrize(
    "wait, interval",
    [
        (prefetched, (1 - SHARE) * BATCH_S),
        (no_prefetch, BATCH_S * (1 - SHARE) / SHARE),
        (partly_prefetched, BATCH_S / 5 * (1 - SHARE) / SHARE),
    ],
)
def test_the_shortest_interval_is_found(wait, interval, first):
    stub = Stub(wait)
    found = search(stub, first * BATCH_S)
    assert found in stub.seen and found.share < SHARE
    assert interval * (1 - 1e-9) <= found.interval <= interval * (1 + PRECISION)
    assert len(stub.seen) <= 20


def test_no_prefetch_is_found_at_once():
    stub = Stub(no_prefetch)
    search(stub, BATCH_S)
    assert len(stub.seen) <= 4


def test_a_coarser_search_takes_fewer_probes():
    fine, coarse = Stub(partly_prefetched), Stub(partly_prefetched)
    best, rough = search(fine, BATCH_S), search(coarse, BATCH_S, precision=0.2)
    assert len(coarse.seen) < len(fine.seen)
    assert best.interval / 1.2 <= rough.interval <= best.interval * 1.2


def test_a_late_search_is_content_with_what_passed():
    stub = Stub(partly_prefetched)
    found = search(stub, BATCH_S, late=lambda: True)
    assert found is stub.seen[-1] and found.share < SHARE


def test_a_loader_that_always_waits_has_no_feed_rate():
    stub = Stub(always)
    assert search(stub, BATCH_S) is None
    assert max(probe.interval for probe in stub.seen) == SPAN * BATCH_S


def test_a_search_ends_where_nobody_ever_waits():
    assert search(Stub(lambda interval: 0.0), BATCH_S).interval < 2 * BATCH_S / SPAN


def test_what_a_neighbour_failed_is_tried_again():
    def noisy(interval: float) -> float:
        failed = len(stub.seen) in (0, 3)  # the first one, and one that is far from close
        return interval if failed else prefetched(interval)

    stub = Stub(noisy)
    found = search(stub, (1 - SHARE) * BATCH_S)
    assert found.interval <= (1 - SHARE) * BATCH_S * (1 + PRECISION)
