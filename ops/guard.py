# SPDX-License-Identifier: Apache-2.0
"""Guard against failed reads of memory-mapped files (wrapper of ops/native/bus.cc).

The kernel sends SIGBUS to a thread that reads a mapped page beyond the end of a truncated file, or
a page that the disk cannot read.  By default SIGBUS ends the process.  With a guard the thread
reads zeros from that page to the end of the mapping, and the guard counts the fault.
"""

from __future__ import annotations

import ctypes

__all__ = ["Guard"]

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64


class Guard:
    """SIGBUS handler for all threads of the process and for processes forked later.

    Faults outside the watched files go to the SIGBUS handler that this guard replaced.

    Parameters
    ----------
    library
        The library of operators, loaded with ctypes.
    """

    def __init__(self, library: ctypes.CDLL):
        # PyDLL keeps the GIL during a call.  face_bus_faults is called for every batch and only
        # reads a counter.  Releasing the GIL and taking it again would take much longer.
        with_gil = ctypes.PyDLL(library._name)
        self._watch, self._faults = library.face_bus_watch, with_gil.face_bus_faults
        self._watch.restype, self._watch.argtypes = _INT, [_POINTER]
        self._faults.restype, self._faults.argtypes = _INT, [_INT]
        library.face_bus_begin.restype, library.face_bus_begin.argtypes = _INT, []
        self.works = bool(library.face_bus_begin())

    def watch(self, address: int) -> int | None:
        """Guard every mapping of the file that is mapped at ``address``; return the file's number.

        ``faults`` expects this number, which is the same for all mappings of the file.  Returns
        None if the guard cannot watch the file.
        """
        number = int(self._watch(address))
        return None if number < 0 else number

    def faults(self, number: int) -> int:
        """Return how many reads of a watched file have failed.

        ``number`` is what ``watch`` returned for the file.  A failed read is counted before any
        thread can read the zeros in place of the missing data.
        """
        return int(self._faults(number))
