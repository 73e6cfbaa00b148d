# SPDX-License-Identifier: Apache-2.0
"""Replace the functions and classes that a pickle of bytes and NumPy arrays may call.

In the terms of pickle, such a function or class is a global.  A stand-in computes the result that a
call of the global would return.  The global never runs.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np

from plain_pickle.dialect import Dialect, KnownGlobal, PlainPickleError, Unbuilt, describe


class Global(KnownGlobal, Enum):
    """Functions and classes that a pickle of arrays may name.

    The value of a member lists the names, "<module> <name>", that different versions of Python and
    NumPy write for the function or class.
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
_ALWAYS_COPIED_BYTES = 1 << 20


def _check_array(data: object, dtype: object, shape: object) -> tuple[bytes, np.dtype, tuple]:
    """Check that the parts of an array fit together, and return them."""
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
    return data, dtype, shape


class Arrays(Dialect):
    """Contents of pickles that consist of bytes and of arrays of bools or numbers.

    The methods in `_STAND_INS` compute the results of calls.  They return None for arguments that
    no valid file would pass.

    Parameters
    ----------
    encodable_characters
        Largest number of characters that all calls of ``_codecs.encode`` together may encode.  The
        arrays whose data must be converted (bools, and numbers in foreign byte order) may have this
        number of bytes plus _ALWAYS_COPIED_BYTES in total.  Without these limits, a small
        pickle could convert one text or one array thousands of times, and the results would fill
        the memory.
    """

    content = "images and booleans"

    def __init__(self, encodable_characters: int) -> None:
        self._encodable_characters = encodable_characters
        self._copied_bytes = 0
        self._max_copied_bytes = encodable_characters + _ALWAYS_COPIED_BYTES

    def known_global(self, module_and_name: str) -> KnownGlobal | None:
        return _GLOBALS.get(module_and_name)

    def call(self, target: object, arguments: object) -> object:
        if not isinstance(target, KnownGlobal) or not isinstance(arguments, tuple):
            raise PlainPickleError(f"calls an object that is no function, got {describe(target)}")
        result = self.stand_in(target, arguments)
        if result is None:
            shown = ", ".join(describe(argument) for argument in arguments[:4])
            raise PlainPickleError(
                f"calls {target} with arguments that no valid file passes, got ({shown})"
            )
        return result

    def stand_in(self, target: KnownGlobal, arguments: tuple) -> object:
        """Return the value that replaces a call in the pickle; the call is never made.

        Return None for a call that no valid file contains; `call` then refuses the file.
        """
        found = _STAND_INS.get(target)
        return found[0](self, *arguments) if found and len(arguments) in found[1] else None

    def set_state(self, target: object, state: object) -> object:
        if type(target) is not Unbuilt or not isinstance(state, tuple):
            raise PlainPickleError(
                f"sets the state of an object that has none, got {describe(target)}"
            )
        if target.dtype is not None:
            return _set_byte_order(target.dtype, state)
        # The state of an array is (version, shape, dtype, is_fortran_order, data).
        if len(state) != 5 or type(state[3]) not in (bool, int):
            raise PlainPickleError(
                "holds an array with a state that NumPy never writes, got "
                f"({', '.join(map(describe, state[:6]))})"
            )
        return self._build_array(state[4], state[2], state[1], "F" if state[3] else "C")

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
        """Return an unbuilt array; pickle's opcode BUILD sets its shape, dtype and data later."""
        return Unbuilt(None) if kind is Global.NDARRAY else None

    def _make_dtype(self, code: object, align: object = 0, copy: object = 1) -> Unbuilt:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if isinstance(code, str) and code in _DTYPES:
            return Unbuilt(np.dtype(code))
        raise PlainPickleError(
            f"holds an array that is not of bools or numbers, got the dtype {describe(code)}"
        )

    def _make_scalar(self, dtype: object, data: object) -> object:
        return self._build_array(data, dtype, (), "C")[()]

    def _build_array(self, data: object, dtype: object, shape: object, order: str) -> np.ndarray:
        content, kind, sides = _check_array(data, dtype, shape)
        array = np.frombuffer(content, kind).reshape(sides, order="F" if order == "F" else "C")
        if kind != np.bool_ and kind.isnative:
            return array  # the array shares the memory of the pickle's bytes
        self._copied_bytes += len(content)
        if self._copied_bytes > self._max_copied_bytes:
            raise PlainPickleError(
                "uses the data of its arrays repeatedly, got arrays of more than "
                f"{self._max_copied_bytes} bytes in total, more than the pickle has"
            )
        if kind == np.bool_:
            # NumPy did not check that these bytes are 0 or 1.  `!= 0` makes others True.
            return array.view(np.uint8) != 0
        return array.astype(kind.newbyteorder("="))

    def _make_array(
        self, data: object, dtype: object, shape: object, order: object, axes: object = None
    ) -> np.ndarray | None:
        if not isinstance(order, str) or order not in ("C", "F") or axes is not None:
            return None
        return self._build_array(data, dtype, shape, order)


# Stand-in for each function or class, and the numbers of arguments that the stand-in accepts.
_STAND_INS: dict[KnownGlobal, tuple[Callable[..., object], tuple[int, ...]]] = {
    Global.ENCODE: (Arrays._encode, (2,)),
    Global.BYTES: (Arrays._make_bytes, (0,)),
    Global.RECONSTRUCT: (Arrays._reconstruct, (3,)),
    Global.DTYPE: (Arrays._make_dtype, (1, 2, 3)),
    Global.SCALAR: (Arrays._make_scalar, (2,)),
    Global.FROMBUFFER: (Arrays._make_array, (4, 5)),
}


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
