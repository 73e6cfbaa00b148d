# SPDX-License-Identifier: Apache-2.0
"""Reads of mapped files that fail: thin over ops/native/bus.cc.

The kernel sends SIGBUS to a thread that reads a mapped page which the file no longer has, or which
the disk cannot read. By default that ends the process. With a guard the thread reads zeros, up to
the end of the map, and the fault is counted.
"""

from __future__ import annotations

import ctypes

__all__ = ["Guard"]

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64


class Guard:
    """A handler of SIGBUS for all threads of the process, and for processes forked later.

    Faults anywhere but in a watched file go to the handler that was there before.

    Parameters
    ----------
    library
        The compiled library, loaded.
    """

    def __init__(self, library: ctypes.CDLL):
        # It only loads a number, and is asked for every batch: giving Python's lock up for that
        # would cost more than all the rest, since another thread takes it.
        quick = ctypes.PyDLL(library._name)
        self._watch, self._faults = library.face_bus_watch, quick.face_bus_faults
        self._watch.restype, self._watch.argtypes = _INT, [_POINTER]
        self._faults.restype, self._faults.argtypes = _INT, [_INT]
        library.face_bus_begin.restype, library.face_bus_begin.argtypes = _INT, []
        self.works = bool(library.face_bus_begin())

    def watch(self, address: int) -> int | None:
        """Watch the file that is mapped at an address, wherever else it is mapped.

        Return its number, the same for all maps of one file; None if it cannot be watched.
        """
        number = int(self._watch(address))
        return None if number < 0 else number

    def faults(self, number: int) -> int:
        """Return how often a watched file could not be read.

        A fault is counted before the first zero can be read.
        """
        return int(self._faults(number))
