# SPDX-License-Identifier: Apache-2.0
"""Worker processes that are forked while OpenCV has threads."""

from __future__ import annotations

import multiprocessing

import cv2
import numpy as np

from tools.data.worker_pool import WorkerPool

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
