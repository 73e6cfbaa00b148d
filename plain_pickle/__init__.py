# SPDX-License-Identifier: Apache-2.0
"""Read pickles of plain data without executing anything in them.

`pickle` imports and calls the objects that a file names.  This package has its own stack machine
instead.  A dialect lists the globals (functions and classes) that a kind of file may name, and
computes the results that calls of these globals would return.
"""

from plain_pickle.arrays import Arrays
from plain_pickle.dialect import Dialect, KnownGlobal, PlainPickleError, Unbuilt, describe
from plain_pickle.machine import load_plain, load_with

__all__ = [
    "Arrays",
    "Dialect",
    "KnownGlobal",
    "PlainPickleError",
    "Unbuilt",
    "describe",
    "load_plain",
    "load_with",
]
