# SPDX-License-Identifier: Apache-2.0
"""The queue of batches: in order, bounded, its maker asleep until a quarter is left."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from pipeline.ahead import Ahead

JOIN_S = 20


class Maker(threading.Thread):
    """Puts 0, 1, 2, ... until the queue is closed."""

    def __init__(self, ahead: Ahead[int]):
        super().__init__(daemon=True)
        self.ahead, self.made = ahead, 0
        self.asleep = threading.Semaphore(0)

    def run(self) -> None:
        wait_for = self.ahead._changed.wait_for

        def watched(condition):
            if not condition():
                self.asleep.release()
            return wait_for(condition)

        self.ahead._changed.wait_for = watched  # the taker here never waits
        for number in count():
            if not self.ahead.put(number):
                return
            self.made = number + 1


def sleeping(maker: Maker) -> int:
    assert maker.asleep.acquire(timeout=JOIN_S)
    return maker.made


@pytest.mark.parametrize(("most", "few"), [(1, 0), (2, 0), (4, 1), (8, 2)])
def test_the_maker_sleeps_until_a_quarter_is_left(most, few):
    ahead: Ahead[int] = Ahead(most)
    maker = Maker(ahead)
    maker.start()
    taken = 0
    for turn in range(3):
        assert sleeping(maker) == taken + most
        for _ in range(most - few):
            assert ahead.take() == taken
            taken += 1
            if most - (taken - turn * (most - few)) > few:
                assert maker.made == turn * (most - few) + most  # still asleep
    ahead.close()
    maker.join(JOIN_S)
    assert not maker.is_alive()


def test_closing_wakes_both():
    ahead: Ahead[int] = Ahead(2)
    maker = Maker(ahead)
    maker.start()
    assert sleeping(maker) == 2
    ahead.close()
    maker.join(JOIN_S)
    assert not maker.is_alive() and not ahead.put(5)
    with pytest.raises(StopIteration):
        ahead.take()

    empty: Ahead[int] = Ahead(2)
    ended = threading.Event()

    def take() -> None:
        with pytest.raises(StopIteration):
            empty.take()
        ended.set()

    threading.Thread(target=take, daemon=True).start()
    empty.close()
    assert ended.wait(JOIN_S)
