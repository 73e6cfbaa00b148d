# SPDX-License-Identifier: Apache-2.0
"""Time without work is counted, time in which the device still computes is not."""

from __future__ import annotations

import threading
import time

import mxnet as mx
import pytest

from tests.training.gate import OPEN, PATIENCE_SECONDS, gated
from training.clock import DeviceClock


@pytest.fixture
def clock():
    made = DeviceClock()
    OPEN.clear()
    yield made
    OPEN.set()
    made.close()


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
    asked = time.perf_counter()
    clock.step(gated(mx.nd.ones((4, 4))))
    assert clock.starved(asked, asked + 100) == 0  # it still computes
    OPEN.set()
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
    small = mx.nd.ones((4,))
    clock.step(small + 1)
    wait_until_idle(clock)
    clock.step(gated(small))
    ahead = small + 2  # ready long before the one ahead of it
    clock.step(ahead)
    ahead.wait_to_read()
    now = time.perf_counter()
    assert clock.starved(now, now + 5) == 0
    OPEN.set()
    wait_until_idle(clock)


def test_closing_ends_the_thread():
    before = set(threading.enumerate())
    clock = DeviceClock()
    (thread,) = {t for t in threading.enumerate() if t.name == "device-clock"} - before
    clock.step(mx.nd.ones((2,)))
    clock.close()
    assert not thread.is_alive()
