# SPDX-License-Identifier: Apache-2.0
"""Worker pool: results in order, large arrays, errors of workers, threads of OpenCV."""

from __future__ import annotations

import gc
import multiprocessing
import os

import cv2
import numpy as np
import pytest

from tools.data.worker_pool import MAX_PROCESSES, WorkerError, WorkerPool, choose_processes

PIXELS = np.zeros((1500, 1500, 3), np.uint8)


def blur() -> int:
    """Use OpenCV's threads; return their number."""
    cv2.GaussianBlur(PIXELS, (0, 0), 5)
    return cv2.getNumThreads()


def work() -> None:
    """Start OpenCV's threads, then fork workers that use OpenCV."""
    cv2.setNumThreads(4)
    blur()
    with WorkerPool(2, lambda: lambda _: blur()) as pool:
        assert list(pool.map(range(4))) == [1] * 4
    assert cv2.getNumThreads() == 4


def test_workers_use_opencv_although_the_process_has_opencv_threads():
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join(240)
    ended = process.exitcode is not None
    process.kill()
    process.join()
    assert ended and process.exitcode == 0


class Garbage:
    """Object in a reference cycle, which only the garbage collector finalises."""

    def __init__(self, collected: list[int]):
        self.myself, self.collected = self, collected

    def __del__(self) -> None:
        self.collected.append(os.getpid())


def test_workers_leave_garbage_of_the_parent_alone():
    collected: list[int] = []

    def collect(_: int) -> list[int]:
        gc.collect()
        return collected

    gc.disable()  # until the fork
    try:
        Garbage(collected)
        with WorkerPool(1, lambda: collect) as pool:
            assert list(pool.map(range(1))) == [[]]
        assert not gc.isenabled()
    finally:
        gc.enable()
    gc.collect()
    assert collected == [os.getpid()]


def test_the_number_of_processes_is_that_of_the_cores_or_in_range():
    assert choose_processes(None) == min(len(os.sched_getaffinity(0)), MAX_PROCESSES)
    assert choose_processes(7) == 7
    for count in (0, -1, MAX_PROCESSES + 1):
        with pytest.raises(ValueError, match=f"^--processes: must be in 1 .. 256, got {count};"):
            choose_processes(count)


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_order_and_arrays_are_complete_and_writable(processes):
    def work(number):
        return number, np.full(300_000, number, np.int32), np.zeros(0)

    with WorkerPool(processes, lambda: work) as pool:
        results = list(pool.map(range(2, 9)))
    assert [number for number, _, _ in results] == list(range(2, 9))
    for number, array, empty in results:
        assert (array == number).all() and array.flags.writeable and empty.size == 0


def test_an_error_of_a_worker_is_raised():
    with pytest.raises(ZeroDivisionError), WorkerPool(2, lambda: lambda n: 1 // n) as pool:
        list(pool.map(range(3)))


def test_a_worker_that_ends_early_is_reported():
    with pytest.raises(WorkerError, match="exit code 7"):
        with WorkerPool(1, lambda: lambda _: os._exit(7)) as pool:
            list(pool.map(range(1)))
