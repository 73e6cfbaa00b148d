# SPDX-License-Identifier: Apache-2.0
"""How long the device stood idle because no batch was there."""

from __future__ import annotations

import queue
import threading
import time

import mxnet as mx


class DeviceClock:
    """Notes the moment at which the device finishes each step.

    The host runs ahead of the device, so a slow ``next(loader)`` costs nothing while earlier steps
    still compute.  Only the part of the wait after the device has finished everything is time
    lost to data; a thread of its own waits for the device, so that the host need not.
    """

    def __init__(self) -> None:
        self._given = 0
        self._done = 0
        self._done_at = time.perf_counter()
        self._lock = threading.Lock()
        self._steps: queue.SimpleQueue[mx.nd.NDArray | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="device-clock", daemon=True)
        self._thread.start()

    def step(self, weight: mx.nd.NDArray) -> None:
        """Tell that a step has been issued; ``weight`` is the last array that it writes."""
        # A copy of one number: it is ready when the update is, and unlike the weight itself it
        # does not become busy again with the next step.
        marker = mx.nd.slice_axis(weight.reshape((-1,)), axis=0, begin=0, end=1)
        with self._lock:
            self._given += 1
        self._steps.put(marker)

    def starved(self, asked: float, got: float) -> float:
        """Return the seconds between ``asked`` and ``got`` in which the device had no work."""
        with self._lock:
            if self._done < self._given:
                return 0.0
            return max(0.0, got - max(asked, self._done_at))

    def close(self) -> None:
        """End the thread."""
        self._steps.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (marker := self._steps.get()) is not None:
            try:
                marker.wait_to_read()  # Sync: in this thread alone
            except mx.base.MXNetError:
                return  # the training thread meets the same error and reports it
            with self._lock:
                self._done += 1
                self._done_at = time.perf_counter()
