# SPDX-License-Identifier: Apache-2.0
"""The emulated device, with guard bytes around arrays that reveal access beyond their ends."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from ops.native.gpu.harness import Harness

STREAM = 0x5EED  # the emulation aborts at a launch on another stream
GUARD_BYTES, ALIGNMENT_BYTES = 512, 256
ORDERS = ("forward", "backward", "shuffled")


def check_close(ours: np.ndarray, true: np.ndarray, tolerance: float) -> None:
    """Assert that all differences are at most ``tolerance`` times the largest value, or times 1."""
    assert ours.shape == true.shape
    assert np.abs(ours - true).max() <= tolerance * max(1.0, np.abs(true).max())


class Device:
    """Emulated device.

    New arrays and the guards on both sides contain NaN in every type.  So a read before the first
    write, or beyond an array, shows up as NaN in the results.
    """

    def __init__(self, library: Path) -> None:
        self._emulation = ctypes.CDLL(str(library))
        self._emulation.emulation_launches.restype = ctypes.c_longlong
        self._emulation.emulation_stream(ctypes.c_void_p(STREAM))
        self._guarded: list[tuple[np.ndarray, int, int]] = []
        self.misaligned = False  # whether arrays start one value after a multiple of 256 bytes
        self.order("forward")
        self.operators = Harness(library, self.empty, lambda array: array.ctypes.data, STREAM)

    def order(self, name: str) -> None:
        """Set the order in which threads and blocks run: one of ``ORDERS``."""
        self._emulation.emulation_order(ORDERS.index(name))

    def launches(self) -> int:
        """Return the number of kernel launches."""
        return self._emulation.emulation_launches()

    def current(self) -> int:
        """Return the number of the current device."""
        return self._emulation.emulation_device()

    def contexts(self) -> list[int]:
        """Return the devices on which contexts were created since the last call."""
        bits = self._emulation.emulation_contexts()
        return [device for device in range(32) if bits >> device & 1]

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return a new array of NaN."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = np.full(size + 2 * GUARD_BYTES + 2 * ALIGNMENT_BYTES, 0xFF, dtype=np.uint8)
        begin = GUARD_BYTES + -(memory.ctypes.data + GUARD_BYTES) % ALIGNMENT_BYTES
        if self.misaligned and dtype != np.uint8:
            begin += dtype.itemsize
        self._guarded.append((memory, begin, begin + size))
        return memory[begin : begin + size].view(dtype).reshape(shape)

    def array(self, values: np.ndarray, dtype: Any = None) -> np.ndarray:
        """Return a copy of an array on the device."""
        copy = self.empty(values.shape, dtype or values.dtype)
        copy[...] = values
        return copy

    def check_guards(self) -> None:
        """Assert that no guard byte has changed."""
        for memory, begin, end in self._guarded:
            assert (memory[:begin] == 0xFF).all() and (memory[end:] == 0xFF).all()
