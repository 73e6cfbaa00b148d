# SPDX-License-Identifier: Apache-2.0
"""Prefetch queue: in order, bounded; its producer sleeps until a quarter of the items remains."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from pipeline import prefetch
from pipeline.prefetch import MAX_POLL_S, MIN_POLL_S, PrefetchQueue

JOIN_S = 120


class Producer(threading.Thread):
    """Thread that puts 0, 1, 2, ... until the queue is closed."""

    def __init__(self, queue: PrefetchQueue[int]):
        super().__init__(daemon=True)
        self.queue, self.made = queue, 0
        self.asleep = threading.Semaphore(0)

    def run(self) -> None:
        sleep = self.queue._sleep

        def observed_sleep():
            self.asleep.release()
            sleep()

        self.queue._sleep = observed_sleep
        for number in count():
            if not self.queue.put(number):
                return
            self.made = number + 1


def sleeping(producer: Producer) -> int:
    assert producer.asleep.acquire(timeout=JOIN_S)
    return producer.made


@pytest.mark.parametrize(("capacity", "refill_at"), [(1, 0), (2, 0), (4, 1), (8, 2)])
def test_the_producer_sleeps_until_a_quarter_remains(capacity, refill_at):
    queue: PrefetchQueue[int] = PrefetchQueue(capacity)
    producer = Producer(queue)
    producer.start()
    taken = 0
    for turn in range(3):
        assert sleeping(producer) == taken + capacity
        for _ in range(capacity - refill_at):
            assert queue.take() == taken
            taken += 1
            if capacity - (taken - turn * (capacity - refill_at)) > refill_at:
                assert producer.made == turn * (capacity - refill_at) + capacity  # still asleep
    queue.close()
    producer.join(JOIN_S)
    assert not producer.is_alive()


def test_closing_wakes_producer_and_consumer():
    queue: PrefetchQueue[int] = PrefetchQueue(2)
    producer = Producer(queue)
    producer.start()
    assert sleeping(producer) == 2
    queue.close()
    producer.join(JOIN_S)
    assert not producer.is_alive() and not queue.put(5)
    with pytest.raises(StopIteration):
        queue.take()

    empty: PrefetchQueue[int] = PrefetchQueue(2)
    ended = threading.Event()

    def take() -> None:
        with pytest.raises(StopIteration):
            empty.take()
        ended.set()

    threading.Thread(target=take, daemon=True).start()
    empty.close()
    assert ended.wait(JOIN_S)


def test_the_producer_polls_less_often_after_a_slow_drain(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(prefetch.time, "monotonic", lambda: now[0])
    queue: PrefetchQueue[int] = PrefetchQueue(4)
    producer = Producer(queue)
    producer.start()
    for emptied_s, poll_s in ((0.04, 0.005), (0.0004, MIN_POLL_S), (9, MAX_POLL_S)):
        sleeping(producer)
        with queue._changed:  # the producer has read the clock
            now[0] += emptied_s
        for _ in range(3):
            queue.take()
        assert producer.asleep.acquire(timeout=JOIN_S)  # the queue is full again
        assert queue._poll_s == pytest.approx(poll_s)
        producer.asleep.release()
    queue.close()


def test_a_consumer_of_an_empty_queue_wakes_the_producer(monkeypatch):
    monkeypatch.setattr(prefetch, "MIN_POLL_S", 3600)
    monkeypatch.setattr(prefetch, "MAX_POLL_S", 3600)
    queue: PrefetchQueue[int] = PrefetchQueue(1)
    queue._poll_s = 3600
    producer = Producer(queue)
    producer.start()
    sleeping(producer)
    assert [queue.take() for _ in range(5)] == [0, 1, 2, 3, 4]
    queue.close()
