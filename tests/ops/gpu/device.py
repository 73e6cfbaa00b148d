# SPDX-License-Identifier: Apache-2.0
"""Arrays on the emulated device, between guards that show who writes or reads beside them."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from ops.native.gpu.harness import Harness

STREAM = 0x5EED  # the emulation stops at work that is put on another one
GUARD, ALIGNMENT = 512, 256
ORDERS = ("forward", "backward", "shuffled")


class Device:
    """The emulated device.

    New memory and the guards on both sides of it hold NaN in every type, so that a value read
    before it is written, or beside an array, is found in the results.
    """

    def __init__(self, library: Path) -> None:
        self._emulation = ctypes.CDLL(str(library))
        self._emulation.emulation_launches.restype = ctypes.c_longlong
        self._emulation.emulation_stream(ctypes.c_void_p(STREAM))
        self._around: list[tuple[np.ndarray, int, int]] = []
        self.misaligned = False  # whether arrays begin one value behind a multiple of 256 bytes
        self.order("forward")
        self.operators = Harness(library, self.empty, lambda array: array.ctypes.data, STREAM)

    def order(self, name: str) -> None:
        """Choose in which order threads and blocks run."""
        self._emulation.emulation_order(ORDERS.index(name))

    def launches(self) -> int:
        """Return how many kernels have been started."""
        return self._emulation.emulation_launches()

    def current(self) -> int:
        """Return the number of the current device."""
        return self._emulation.emulation_device()

    def contexts(self) -> list[int]:
        """Return the devices on which contexts were opened since the last call."""
        found = self._emulation.emulation_contexts()
        return [device for device in range(32) if found >> device & 1]

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return a new array of NaN."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = np.full(size + 2 * GUARD + 2 * ALIGNMENT, 0xFF, dtype=np.uint8)
        begin = GUARD + -(memory.ctypes.data + GUARD) % ALIGNMENT
        if self.misaligned and dtype != np.uint8:
            begin += dtype.itemsize
        self._around.append((memory, begin, begin + size))
        return memory[begin : begin + size].view(dtype).reshape(shape)

    def array(self, values: np.ndarray, dtype: Any = None) -> np.ndarray:
        """Return a copy on the device."""
        made = self.empty(values.shape, dtype or values.dtype)
        made[...] = values
        return made

    def check_surroundings(self) -> None:
        """Assert that nothing beside an array has been written."""
        for memory, begin, end in self._around:
            assert (memory[:begin] == 0xFF).all() and (memory[end:] == 0xFF).all()
