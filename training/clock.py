# SPDX-License-Identifier: Apache-2.0
"""Measure how long the device is idle because it waits for the next batch."""

from __future__ import annotations

import queue
import threading
import time

import mxnet as mx


class DeviceClock:
    """Clock that records when the device finishes each step.

    The host issues steps before the device computes them, so a slow ``next(loader)`` costs nothing
    while the device computes earlier steps.  Time is lost only after the device has finished the
    last issued step.  A separate thread waits for the device, so that the training thread does not
    block.
    """

    def __init__(self) -> None:
        self._issued_steps = 0
        self._finished_steps = 0
        self._finished_at = time.perf_counter()
        self._lock = threading.Lock()
        self._steps: queue.SimpleQueue[mx.nd.NDArray | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._record_ends, name="device-clock", daemon=True)
        self._thread.start()

    def step(self, weight: mx.nd.NDArray) -> None:
        """Record that a step has been issued; ``weight`` is the last array that the step writes."""
        # Wait for a copy of one number of the weight: the copy is ready when this step has updated
        # the weight.  A wait for the weight itself could also include the update of the next step.
        marker = mx.nd.slice_axis(weight.reshape((-1,)), axis=0, begin=0, end=1)
        with self._lock:
            self._issued_steps += 1
        self._steps.put(marker)

    def idle_seconds(self, start: float, end: float) -> float:
        """Return the seconds between ``start`` and ``end`` in which the device had no work."""
        with self._lock:
            if self._finished_steps < self._issued_steps:
                return 0.0
            return max(0.0, end - max(start, self._finished_at))

    def close(self) -> None:
        """Stop the thread that waits for the device."""
        self._steps.put(None)
        self._thread.join()

    def _record_ends(self) -> None:
        while (marker := self._steps.get()) is not None:
            try:
                marker.wait_to_read()  # Sync: blocks only this thread
            except mx.base.MXNetError:
                return  # the training thread raises this error too
            with self._lock:
                self._finished_steps += 1
                self._finished_at = time.perf_counter()
