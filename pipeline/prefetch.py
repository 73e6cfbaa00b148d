# SPDX-License-Identifier: Apache-2.0
"""What one thread makes ahead for another."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")

LOOKS = 8  # that the maker has at a full queue while it is emptied
SHORTEST_S, LONGEST_S = 0.001, 0.01  # between two of them


class Ahead(Generic[Item]):
    """A bounded queue whose maker sleeps, once it is full, until a quarter is left.

    A maker that is woken when an item is taken holds Python's lock, and has the processor, just
    when the taker wants to go on.  So it is not told: it looks by itself, as often as the queue was
    emptied slowly the last time.  Only a taker who finds nothing wakes it.

    Parameters
    ----------
    most
        Items that it holds.
    """

    def __init__(self, most: int):
        self._most, self._few = most, most // 4
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._filling, self._closed = True, False
        self._look_s = SHORTEST_S

    def put(self, item: Item) -> bool:
        """Add an item when there is room; return whether it was, which it is unless closed."""
        with self._changed:
            if len(self._items) == self._most:
                self._sleep()
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def _sleep(self) -> None:
        self._filling, begun = False, time.monotonic()
        while not (self._filling or self._closed):
            self._changed.wait(self._look_s)
        emptied_s = time.monotonic() - begun
        self._look_s = min(LONGEST_S, max(SHORTEST_S, emptied_s / LOOKS))

    def take(self) -> Item:
        """Wait for the oldest item and remove it.

        Raises
        ------
        StopIteration
            If it is closed.
        """
        with self._changed:
            if not self._items:
                self._filling = True
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._items or self._closed)
            if self._closed:
                raise StopIteration
            item = self._items.popleft()
            self._filling |= len(self._items) <= self._few
            return item

    def close(self) -> None:
        """Wake both up; nothing is put or taken from now on."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
