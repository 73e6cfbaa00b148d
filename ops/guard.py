# SPDX-License-Identifier: Apache-2.0
"""Guard against failed reads of memory-mapped files (wrapper of ops/native/bus.cc).

The kernel sends SIGBUS to a thread that reads a mapped page beyond the end of a truncated file, or
a page that the disk cannot read.  By default SIGBUS ends the process.  With a guard the thread
reads zeros from that page to the end of the map, and the guard counts the fault.
"""

from __future__ import annotations

import ctypes

__all__ = ["Guard"]

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64


class Guard:
    """SIGBUS handler for all threads of the process and for processes forked later.

    Faults outside the watched files go to the previous handler.

    Parameters
    ----------
    library
        The compiled library of operators.
    """

    def __init__(self, library: ctypes.CDLL):
        # PyDLL keeps the GIL. Every batch calls face_bus_faults, which only reads a counter; to
        # release the GIL and wait for it again would take much longer than the call.
        with_gil = ctypes.PyDLL(library._name)
        self._watch, self._faults = library.face_bus_watch, with_gil.face_bus_faults
        self._watch.restype, self._watch.argtypes = _INT, [_POINTER]
        self._faults.restype, self._faults.argtypes = _INT, [_INT]
        library.face_bus_begin.restype, library.face_bus_begin.argtypes = _INT, []
        self.works = bool(library.face_bus_begin())

    def watch(self, address: int) -> int | None:
        """Watch the file mapped at an address, in all its maps.

        Return the number of the file, or None if the guard cannot watch it.  All maps of a file
        have the same number.
        """
        number = int(self._watch(address))
        return None if number < 0 else number

    def faults(self, number: int) -> int:
        """Return the number of failed reads of a watched file.

        The counter rises before any thread can read the zeros.
        """
        return int(self._faults(number))
