# SPDX-License-Identifier: Apache-2.0
"""DeviceClock counts the time without work and ignores waits while the device computes."""

from __future__ import annotations

import threading
import time

import mxnet as mx
import pytest

from tests.training.gate import OPEN, TIMEOUT_S, gated
from training.clock import DeviceClock


@pytest.fixture
def clock():
    made = DeviceClock()
    OPEN.clear()
    yield made
    OPEN.set()
    made.close()


def wait_until_idle(clock: DeviceClock) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        now = time.perf_counter()
        if clock.idle_seconds(now, now + 1) > 0:
            return
        time.sleep(0.005)
    raise AssertionError("the device never became idle")


def test_a_wait_before_the_first_step_counts(clock):
    now = time.perf_counter()
    assert clock.idle_seconds(now, now + 2) == pytest.approx(2)


def test_a_wait_during_a_step_does_not_count(clock):
    start = time.perf_counter()
    clock.step(gated(mx.nd.ones((4, 4))))
    assert clock.idle_seconds(start, start + 100) == 0  # the step is still in flight
    OPEN.set()
    wait_until_idle(clock)
    # A wait that starts during the step counts from the end of the step, which lies between
    # `start` and `now`.
    now = time.perf_counter()
    assert 100 - (now - start) <= clock.idle_seconds(start, start + 100) < 100
    # A wait that starts on an idle device counts in full.
    assert clock.idle_seconds(now, now + 3) == pytest.approx(3)
    # A wait that ends before the step does counts nothing.
    assert clock.idle_seconds(start, start) == 0


def test_the_device_is_busy_until_the_last_step_ends(clock):
    small = mx.nd.ones((4,))
    clock.step(small + 1)
    wait_until_idle(clock)
    clock.step(gated(small))
    ready = small + 2  # ready before the gated step
    clock.step(ready)
    ready.wait_to_read()
    now = time.perf_counter()
    assert clock.idle_seconds(now, now + 5) == 0
    OPEN.set()
    wait_until_idle(clock)


def test_close_stops_the_thread():
    before = set(threading.enumerate())
    clock = DeviceClock()
    (thread,) = {t for t in threading.enumerate() if t.name == "device-clock"} - before
    clock.step(mx.nd.ones((2,)))
    clock.close()
    assert not thread.is_alive()


def test_an_error_of_the_device_ends_the_count_of_steps(clock):
    class Marker:
        def wait_to_read(self):
            raise mx.base.MXNetError("no device")

    start = time.perf_counter()
    clock._steps.put(Marker())
    clock._thread.join(TIMEOUT_S)
    assert not clock._thread.is_alive()
    assert clock.idle_seconds(start, start + 2) == pytest.approx(2)
