# SPDX-License-Identifier: Apache-2.0
"""Replace the functions and classes that the pickle of a verification set may call.

Pickle calls such a function or class a global.  A stand-in computes the result that a call of the
global would return.  The global never runs.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np


class PlainPickleError(ValueError):
    """Error for a pickle that is malformed or holds more than plain data.

    The message has the form "<what is wrong>, got <value>"; its subject is the pickle.
    """


class Global(Enum):
    """Functions and classes that the pickle of a verification set may name.

    The value of a member lists the names, "<module> <name>", that the versions of Python and NumPy
    write for the function or class.
    """

    # At protocols 0 to 2, Python 3 writes bytes as a call of _codecs.encode, and b"" as bytes().
    ENCODE = ("_codecs encode",)
    BYTES = ("builtins bytes", "__builtin__ bytes")
    NDARRAY = ("numpy ndarray",)
    DTYPE = ("numpy dtype",)
    RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
    SCALAR = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
    # At protocol 5, NumPy writes arrays as a call of _frombuffer.
    FROMBUFFER = ("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer")

    def __str__(self) -> str:
        return self.value[0].replace(" ", ".")


_GLOBALS = {name: known for known in Global for name in known.value}
# Allowed dtypes.  Object dtypes are missing because their data would be pointers, and structured
# dtypes are missing because their fields could hold objects.
_DTYPES = frozenset("b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split())
_MAX_AXES = 8


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
    """Describe a value in a few words for a message, without reading nested values."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes {bytes(value[:16])!r}"
    if isinstance(value, str):
        return repr(value[:60])
    if value is None or isinstance(value, bool | int | np.generic):
        return f"{type(value).__name__} {value}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Global):
        return f"the global {value}"
    return "an unfinished array" if isinstance(value, Unbuilt) else type(value).__name__


def _make_array(data: object, dtype: object, shape: object, order: str) -> np.ndarray:
    if not isinstance(dtype, np.dtype):
        raise PlainPickleError(f"holds an array without a dtype, got {describe(dtype)}")
    if not isinstance(data, bytes):
        raise PlainPickleError(f"holds an array whose data are not bytes, got {describe(data)}")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise PlainPickleError(
            f"holds an array whose shape is not a tuple of sizes, got {describe(shape)}"
        )
    if len(shape) > _MAX_AXES:
        raise PlainPickleError(
            f"holds an array with more than {_MAX_AXES} axes, got {len(shape)} axes"
        )
    size = dtype.itemsize
    for n in shape:
        size *= n  # Python integers do not overflow, however large the shape
    if size != len(data):
        raise PlainPickleError(
            f"holds an array of shape {shape} and dtype {dtype}, which needs {size} bytes, got "
            f"{len(data)} bytes"
        )
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")
    if dtype == np.bool_:
        # NumPy does not check that each byte of a boolean array is 0 or 1.
        array = array.view(np.uint8) != 0
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def find_global(module: object, name: object) -> Global:
    """Return the function or class with this module and name, as a member of `Global`.

    Raises
    ------
    PlainPickleError
        If `Global` has no such member.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise PlainPickleError(f"holds a global whose name is not text, got {describe(module)}")
    if known := _GLOBALS.get(f"{module} {name}"):
        return known
    full = f"{module}.{name}"[:80]
    raise PlainPickleError(f"holds more than images and booleans, got the global {full!r}")


class StandIns:
    """Stand-ins for the functions and classes that one pickle calls.

    A stand-in returns None for arguments that the pickle of a verification set never passes.

    Parameters
    ----------
    encodable_characters
        Largest number of characters that all calls of ``_codecs.encode`` together may encode.
        Without this limit a small pickle could encode one text thousands of times, and the results
        would fill the memory.
    """

    def __init__(self, encodable_characters: int) -> None:
        self._encodable_characters = encodable_characters

    def call(self, target: object, arguments: object) -> object:
        """Return the result of ``target(*arguments)``, computed by the stand-in of ``target``.

        Raises
        ------
        PlainPickleError
            If `target` is not a member of `Global`, or the pickle of a verification set never
            passes such arguments.
        """
        if not isinstance(target, Global) or not isinstance(arguments, tuple):
            raise PlainPickleError(f"calls an object that is no function, got {describe(target)}")
        found = _STAND_INS.get(target)
        result = found[0](self, *arguments) if found and len(arguments) in found[1] else None
        if result is None:
            shown = ", ".join(describe(argument) for argument in arguments[:4])
            raise PlainPickleError(
                f"calls {target} with arguments that no verification set passes, got ({shown})"
            )
        return result

    def _encode(self, text: object, codec: object) -> bytes | None:
        if not isinstance(text, str) or not isinstance(codec, str):
            return None
        if codec not in ("latin1", "latin-1"):
            return None
        self._encodable_characters -= len(text)
        return text.encode("latin1") if self._encodable_characters >= 0 else None

    def _make_bytes(self) -> bytes:
        return b""

    def _reconstruct(self, kind: object, shape: object, code: object) -> Unbuilt | None:
        """Return an empty array; pickle's opcode BUILD sets its shape, dtype and data later."""
        return Unbuilt(None) if kind is Global.NDARRAY else None

    def _make_dtype(self, code: object, align: object = 0, copy: object = 1) -> Unbuilt:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if isinstance(code, str) and code in _DTYPES:
            return Unbuilt(np.dtype(code))
        raise PlainPickleError(
            f"holds an array that is not of bools or numbers, got the dtype {describe(code)}"
        )

    def _make_scalar(self, dtype: object, data: object) -> object:
        return _make_array(data, dtype, (), "C")[()]

    def _make_array(
        self, data: object, dtype: object, shape: object, order: object, axes: object = None
    ) -> np.ndarray | None:
        if not isinstance(order, str) or order not in ("C", "F") or axes is not None:
            return None
        return _make_array(data, dtype, shape, order)


# Stand-in for each function or class, and the numbers of arguments that the stand-in accepts.
_STAND_INS: dict[Global, tuple[Callable[..., object], tuple[int, ...]]] = {
    Global.ENCODE: (StandIns._encode, (2,)),
    Global.BYTES: (StandIns._make_bytes, (0,)),
    Global.RECONSTRUCT: (StandIns._reconstruct, (3,)),
    Global.DTYPE: (StandIns._make_dtype, (1, 2, 3)),
    Global.SCALAR: (StandIns._make_scalar, (2,)),
    Global.FROMBUFFER: (StandIns._make_array, (4, 5)),
}


def set_state(unbuilt: object, state: object) -> np.ndarray | np.dtype:
    """Fill an array or dtype with a state, as the pickle opcode BUILD does, and return the result.

    Raises
    ------
    PlainPickleError
        If ``unbuilt`` is not an `Unbuilt`, or NumPy never writes such a state.
    """
    if type(unbuilt) is not Unbuilt or not isinstance(state, tuple):
        raise PlainPickleError(
            f"sets the state of an object that has none, got {describe(unbuilt)}"
        )
    if unbuilt.dtype is not None:
        return _set_byte_order(unbuilt.dtype, state)
    # The state of an array is (version, shape, dtype, is_fortran_order, data).
    if len(state) != 5 or type(state[3]) not in (bool, int):
        raise PlainPickleError(
            f"holds an array with a state that NumPy never writes, got {len(state)} parts"
        )
    return _make_array(state[4], state[2], state[1], "F" if state[3] else "C")


def _set_byte_order(dtype: np.dtype, state: tuple) -> np.dtype:
    """Return `dtype` with the byte order in `state`; refuse a state that sets anything else.

    The state is (version, byte order, subarray, names, fields, size, alignment, flags).
    """
    order = state[1] if len(state) == 8 else None
    order = order.decode("latin1") if isinstance(order, bytes) else order
    sizes = state[5:]
    if (
        not isinstance(order, str)
        or order not in ("<", ">", "|", "=")
        or any(part is not None for part in state[2:5])
        or not all(type(n) is int for n in sizes)
        or sizes != (-1, -1, 0)
    ):
        raise PlainPickleError(
            "holds an array that is not of bools or numbers, got a dtype state of "
            f"{len(state)} parts for {dtype}"
        )
    return np.dtype(order + dtype.str[1:])
