# SPDX-License-Identifier: Apache-2.0
"""Bounded queue between the thread that prefetches batches and the thread that uses them."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")

# Approximate number of times that a producer with a full queue polls for free space while the
# consumer empties the queue.
POLLS_PER_DRAIN = 8
MIN_POLL_S, MAX_POLL_S = 0.001, 0.01  # bounds of the time between two polls by the producer


class PrefetchQueue(Generic[Item]):
    """Bounded queue; when it is full, the producer sleeps until a quarter of the items remain.

    If the consumer woke the producer after every item, the producer would take Python's global
    interpreter lock and the processor just when the consumer wants to continue.  Therefore a
    sleeping producer polls the queue, and it polls less often if the last drain was slow.  The
    consumer wakes the producer only if the queue is empty.
    """

    def __init__(self, capacity: int):
        self._capacity, self._refill_at = capacity, capacity // 4
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._filling, self._closed = True, False
        self._poll_s = MIN_POLL_S

    def put(self, item: Item) -> bool:
        """Wait for space and append an item; return False if the queue is closed."""
        with self._changed:
            if len(self._items) == self._capacity:
                self._sleep()
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def _sleep(self) -> None:
        self._filling, start = False, time.monotonic()
        while not (self._filling or self._closed):
            self._changed.wait(self._poll_s)
        drain_s = time.monotonic() - start
        self._poll_s = min(MAX_POLL_S, max(MIN_POLL_S, drain_s / POLLS_PER_DRAIN))

    def take(self) -> Item:
        """Wait for an item, remove it and return it; raise StopIteration if the queue is closed."""
        with self._changed:
            if not self._items:
                self._filling = True
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._items or self._closed)
            if self._closed:
                raise StopIteration
            item = self._items.popleft()
            self._filling |= len(self._items) <= self._refill_at
            return item

    def close(self) -> None:
        """Drop all items; from now on ``put`` returns False and ``take`` raises StopIteration."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
