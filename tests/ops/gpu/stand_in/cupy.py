# SPDX-License-Identifier: Apache-2.0
"""Stand-in for the parts of CuPy that benchmarks/gpu_operators.py uses; its device is the host."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
from numpy import exp, log, sqrt  # noqa: F401  part of CuPy's interface


class ndarray(np.ndarray):  # noqa: N801  CuPy's name
    """Array with CuPy's attribute for the address."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


def asarray(values):
    # A copy, as from host to device.
    copy = empty(values.shape, values.dtype)
    copy[...] = values
    return copy


def empty(shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.full(size + 256, 0xFF, np.uint8)
    begin = -memory.ctypes.data % 256  # CuPy aligns its memory to 256 bytes
    return memory[begin : begin + size].view(dtype).reshape(shape).view(ndarray)


def asnumpy(array):
    return np.array(array)


def get_default_memory_pool():
    return SimpleNamespace(
        free_all_blocks=lambda: None, used_bytes=lambda: 0, total_bytes=lambda: 2**20
    )


class _Stream:
    ptr = 0

    def __init__(self, non_blocking):
        assert non_blocking

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def synchronize(self):
        return None


class _Event:
    def record(self, stream):
        self.at = time.perf_counter()

    def synchronize(self):
        return None


cuda = SimpleNamespace(
    Stream=_Stream,
    Event=_Event,
    get_elapsed_time=lambda start, end: 1000 * (end.at - start.at),
    runtime=SimpleNamespace(
        getDeviceCount=lambda: 1, getDeviceProperties=lambda device: {"name": b"the host"}
    ),
)
