# SPDX-License-Identifier: Apache-2.0
"""What one thread makes ahead for another."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """A bounded queue whose maker sleeps, once it is full, until a quarter is left.

    A maker that wakes up for each item that is taken holds Python's lock just when the taker
    wants to go on, and on busy cores it may be put aside while it does.

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

    def put(self, item: Item) -> bool:
        """Add an item when there is room; return whether it was, which it is unless closed."""
        with self._changed:
            if len(self._items) == self._most:
                self._filling = False
            self._changed.wait_for(lambda: self._filling or self._closed)
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def take(self) -> Item:
        """Wait for the oldest item and remove it.

        Raises
        ------
        StopIteration
            If it is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            if self._closed:
                raise StopIteration
            item = self._items.popleft()
            if not self._filling and len(self._items) <= self._few:
                self._filling = True
                self._changed.notify_all()
            return item

    def close(self) -> None:
        """Wake both up; nothing is put or taken from now on."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
