# SPDX-License-Identifier: Apache-2.0
"""The queue of batches: in order, bounded, its maker asleep until a quarter is left."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from pipeline import prefetch as ahead_module
from pipeline.prefetch import LONGEST_S, SHORTEST_S, Ahead

JOIN_S = 120


class Maker(threading.Thread):
    """Puts 0, 1, 2, ... until the queue is closed."""

    def __init__(self, ahead: Ahead[int]):
        super().__init__(daemon=True)
        self.ahead, self.made = ahead, 0
        self.asleep = threading.Semaphore(0)

    def run(self) -> None:
        sleep = self.ahead._sleep

        def watched():
            self.asleep.release()
            sleep()

        self.ahead._sleep = watched
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


def test_the_maker_looks_as_often_as_the_queue_is_emptied_slowly(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(ahead_module.time, "monotonic", lambda: now[0])
    queue: Ahead[int] = Ahead(4)
    maker = Maker(queue)
    maker.start()
    for emptied_s, look_s in ((0.04, 0.005), (0.0004, SHORTEST_S), (9, LONGEST_S)):
        sleeping(maker)
        with queue._changed:  # the maker has seen when it fell asleep
            now[0] += emptied_s
        for _ in range(3):
            queue.take()
        assert maker.asleep.acquire(timeout=JOIN_S)  # full again
        assert queue._look_s == pytest.approx(look_s)
        maker.asleep.release()
    queue.close()


def test_a_taker_who_finds_nothing_wakes_the_maker(monkeypatch):
    monkeypatch.setattr(ahead_module, "SHORTEST_S", 3600)
    monkeypatch.setattr(ahead_module, "LONGEST_S", 3600)
    queue: Ahead[int] = Ahead(1)
    queue._look_s = 3600
    maker = Maker(queue)
    maker.start()
    sleeping(maker)
    assert [queue.take() for _ in range(5)] == [0, 1, 2, 3, 4]
    queue.close()
