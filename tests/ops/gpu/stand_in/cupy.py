# SPDX-License-Identifier: Apache-2.0
"""As much of CuPy as benchmarks/gpu_operators.py calls, with the host as its device."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
from numpy import exp, log, sqrt  # noqa: F401  CuPy has them


class ndarray(np.ndarray):  # noqa: N801  CuPy's name
    """An array whose address is found where CuPy has it."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


def asarray(values):
    # A copy, as from the host to the device; 256 bytes apart as CuPy's memory.
    made = empty(values.shape, values.dtype)
    made[...] = values
    return made


def empty(shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.full(size + 256, 0xFF, np.uint8)
    begin = -memory.ctypes.data % 256
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
