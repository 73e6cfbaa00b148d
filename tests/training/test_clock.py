# SPDX-License-Identifier: Apache-2.0
"""Time without work is counted, time in which the device still computes is not."""

from __future__ import annotations

import threading
import time

import mxnet as mx
import pytest

from training.clock import DeviceClock

PATIENCE_SECONDS = 60


@pytest.fixture
def clock():
    made = DeviceClock()
    yield made
    made.close()


def long_step(weight: mx.nd.NDArray) -> mx.nd.NDArray:
    """Give the device work for some tenths of a second that ends in a new weight."""
    for _ in range(30):
        weight = mx.nd.dot(weight, weight) * 1e-3
    return weight


def wait_until_idle(clock: DeviceClock) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        now = time.perf_counter()
        if clock.starved(now, now + 1) > 0:
            return
        time.sleep(0.005)
    raise AssertionError("the device never became idle")


def test_before_the_first_step_all_waiting_counts(clock):
    now = time.perf_counter()
    assert clock.starved(now, now + 2) == pytest.approx(2)


def test_waiting_while_the_device_works_is_free(clock):
    weight = mx.nd.ones((640, 640))
    weight.wait_to_read()
    asked = time.perf_counter()
    result = long_step(weight)
    clock.step(result)
    assert clock.starved(asked, asked + 100) == 0  # it still computes
    result.wait_to_read()
    wait_until_idle(clock)
    # Asked before the device was done, got a hundred seconds later: from its end on it starved.
    # That lies between the time of asking and now.
    now = time.perf_counter()
    assert 100 - (now - asked) <= clock.starved(asked, asked + 100) < 100
    # Asked when it was idle already: all of it.
    assert clock.starved(now, now + 3) == pytest.approx(3)
    # Got before the device was done: nothing.
    assert clock.starved(asked, asked) == 0


def test_every_step_under_way_must_end(clock):
    small, large = mx.nd.ones((4,)), mx.nd.ones((640, 640))
    clock.step(small + 1)
    wait_until_idle(clock)
    clock.step(long_step(large))
    clock.step(small + 2)  # ready long before the one ahead of it
    now = time.perf_counter()
    assert clock.starved(now, now + 5) == 0
    wait_until_idle(clock)


def test_closing_ends_the_thread():
    before = threading.active_count()
    clock = DeviceClock()
    assert threading.active_count() == before + 1
    clock.step(mx.nd.ones((2,)))
    clock.close()
    assert threading.active_count() == before
