# SPDX-License-Identifier: Apache-2.0
"""What the pickles of one kind of file may contain."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

BASIC_OPCODES = frozenset(
    (
        "INT BININT BININT1 BININT2 LONG LONG1 LONG4 BINBYTES SHORT_BINBYTES BINBYTES8 STRING "
        "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINSTRING SHORT_BINSTRING BYTEARRAY8 "
        "PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET MEMOIZE NONE NEWTRUE NEWFALSE EMPTY_LIST "
        "EMPTY_TUPLE MARK LIST APPEND APPENDS TUPLE TUPLE1 TUPLE2 TUPLE3 GLOBAL STACK_GLOBAL INST "
        "REDUCE BUILD PROTO FRAME STOP"
    ).split()
)
"""Opcodes of bytes, text, integers, lists, tuples and calls of known globals."""


class PlainPickleError(ValueError):
    """Error for a pickle that is malformed or holds more than plain data.

    The message has the form "<what is wrong>, got <value>"; its subject is the pickle.
    """


class KnownGlobal:
    """Base class of functions and classes that a dialect knows; `str` gives the dotted name."""


class Unbuilt:
    """Array or dtype that a pickle's opcode REDUCE has created and opcode BUILD has yet to fill.

    ``dtype`` is None for an array, because BUILD sets the dtype of an array.  ``keys`` are the keys
    of this object in the pickle's memo.
    """

    __slots__ = ("dtype", "keys")

    def __init__(self, dtype: np.dtype | None) -> None:
        self.dtype = dtype
        self.keys: list[int] = []


def describe(value: object) -> str:
    """Describe a value in a few words for a message; no nested value is read."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes {bytes(value[:16])!r}"
    if isinstance(value, str):
        return repr(value[:60])
    if value is None or isinstance(value, bool | int | float | np.generic):
        return f"{type(value).__name__} {value}"
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, KnownGlobal):
        return f"the global {value}"
    return "an unfinished array" if isinstance(value, Unbuilt) else type(value).__name__


class Dialect:
    """Globals, calls and opcodes that the pickles of one kind of file may contain.

    A global is a function or a class that a pickle names.  The real global is never imported or
    called: a dialect computes the result that a call of the global would return.
    """

    content = "plain data"
    """What such a file holds, for messages."""
    opcodes = BASIC_OPCODES
    """Names of the opcodes that such a file may use."""
    max_opcodes: int | None = None
    """Largest number of opcodes of one pickle, to bound the time of reading it; None: no limit."""

    def find_global(self, module: object, name: object) -> KnownGlobal:
        """Look up a global by its module and name, and return it.

        Raises
        ------
        PlainPickleError
            If the global is not one of the known globals.
        """
        if not isinstance(module, str) or not isinstance(name, str):
            wrong = name if isinstance(module, str) else module
            raise PlainPickleError(f"holds a global whose name is not text, got {describe(wrong)}")
        if known := self.known_global(f"{module} {name}"):
            return known
        self.refuse(f"the global {f'{module}.{name}'[:80]!r}")

    def known_global(self, module_and_name: str) -> KnownGlobal | None:
        """Return the global of a name "<module> <name>"; return None for an unknown name."""
        return None

    def call(self, target: object, arguments: object) -> object:
        """Return the result of ``target(*arguments)``.

        Raises
        ------
        PlainPickleError
            If the target is not a known function, or if no valid file passes these arguments.
        """
        raise PlainPickleError(f"calls an object that is no function, got {describe(target)}")

    def set_state(self, target: object, state: object) -> object:
        """Return the object that the BUILD opcode makes from an object and its state.

        Raises
        ------
        PlainPickleError
            If no valid file contains this state.
        """
        raise PlainPickleError(f"sets the state of an object that has none, got {describe(target)}")

    def load_persistent(self, identifier: object) -> object:
        """Return the object outside the pickle that a persistent identifier stands for.

        Raises
        ------
        PlainPickleError
            If no valid file contains this identifier.
        """
        self.refuse(f"the persistent identifier {describe(identifier)}")

    def refuse(self, found: str) -> NoReturn:
        """Raise PlainPickleError for something that no valid file contains."""
        raise PlainPickleError(f"holds more than {self.content}, got {found}")
