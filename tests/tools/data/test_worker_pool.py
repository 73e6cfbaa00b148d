# SPDX-License-Identifier: Apache-2.0
"""Worker pool: results in order, large arrays, errors of workers."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tools.data.worker_pool import WorkerError, WorkerPool


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
