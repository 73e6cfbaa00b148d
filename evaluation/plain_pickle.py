# SPDX-License-Identifier: Apache-2.0
"""Read a pickle that holds plain data and NumPy arrays, and run nothing that is in it.

`pickle` imports and calls what a file names, and its `find_class` hook leaves ways round it (the
extension cache, attributes set by BUILD, a memo index that asks for gigabytes). This is a stack
machine of its own instead: `pickletools` reads the arguments of the opcodes, opcodes not listed
below are refused, a global is a name compared with a list, and what such a name stands for is
written out here. No object of the file is ever called.
"""

from __future__ import annotations

import codecs
import io
import pickletools
from enum import Enum
from functools import partial
from typing import Any

import numpy as np


class PlainPickleError(ValueError):
    """The pickle is malformed or holds more than plain data: "<what is wrong>, got <value>"."""


class _Global(Enum):
    """A global that a file may name, by its modules and names; `_Machine` says what it does."""

    ENCODE = ("_codecs encode",)  # bytes at protocols 0 to 2, written by Python 3
    BYTES = ("builtins bytes", "__builtin__ bytes")  # and so b"": bytes()
    NDARRAY = ("numpy ndarray",)
    DTYPE = ("numpy dtype",)
    RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
    SCALAR = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
    FROMBUFFER = ("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer")  # protocol 5

    def __str__(self) -> str:
        return self.value[0].replace(" ", ".")


_GLOBALS = {name: known for known in _Global for name in known.value}
# No object dtype: its data would be pointers. No structured one: objects could hide in it.
_DTYPES = frozenset("b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split())
_OPCODES = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}
_MAX_NUMBER_BYTES = 40  # digits, where a number is text
_TEXT_ARGUMENTS = ("string", "unicodestring", "bytes", "bytearray")  # all others are numbers
_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Unbuilt:
    """An array or dtype between its REDUCE and its BUILD; `keys` are the memo's names for it."""

    __slots__ = ("dtype", "keys")

    def __init__(self, dtype: np.dtype | None) -> None:
        self.dtype = dtype  # None: an array, which learns everything from its state
        self.keys: list[int] = []


def load_plain(data: bytes) -> object:
    """Read a pickle of bytes, str, bool, int, None, list, tuple and arrays of bools or numbers.

    Parameters
    ----------
    data
        The whole pickle, of protocol 0 to 5. Python 2's `str` becomes bytes.

    Raises
    ------
    PlainPickleError
        If it is cut off or malformed, or holds anything else.
    """
    if not data:
        raise PlainPickleError("the file is empty, got 0 bytes")
    machine = _Machine(data)
    try:
        return machine.run()
    except PlainPickleError:
        raise
    except (IndexError, KeyError, ValueError, OverflowError) as error:
        # An empty stack, a memo entry never put, text that is no number: all in the machine's code.
        raise PlainPickleError(
            f"is not a whole pickle, got {type(error).__name__} before byte {machine.stream.tell()}"
        ) from None


def describe(value: object) -> str:
    """Show a value in a few words; never the whole, which may be long, nested or circular."""
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
    if isinstance(value, _Global):
        return f"the global {value}"
    return "an unfinished array" if isinstance(value, _Unbuilt) else type(value).__name__


def _make_array(data: object, dtype: object, shape: object, order: str) -> np.ndarray:
    if not isinstance(dtype, np.dtype):
        raise PlainPickleError(f"an array's dtype is missing, got {describe(dtype)}")
    if not isinstance(data, bytes):
        raise PlainPickleError(f"an array's data are not bytes, got {describe(data)}")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise PlainPickleError(f"an array's shape is not a tuple of sizes, got {describe(shape)}")
    if len(shape) > 8:
        raise PlainPickleError(f"an array has too many axes, got {len(shape)}")
    size = dtype.itemsize
    for n in shape:
        size *= n  # Python's integers: nothing overflows
    if size != len(data):
        raise PlainPickleError(
            f"an array of shape {shape} and {dtype} needs {size} bytes, got {len(data)}"
        )
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")
    if dtype == np.bool_:
        # A byte other than 0 and 1 is no boolean, and NumPy does not look.
        array = array.view(np.uint8) != 0
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


class _Stream(io.BytesIO):
    """The bytes of a pickle; refuses to read what is not there before anything is allocated."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.size = len(data)
        self.reads_number = False
        """Whether the argument of the current opcode is a number."""

    def read(self, count: int | None = -1) -> bytes:
        assert count is not None
        if self.reads_number and count > _MAX_NUMBER_BYTES:
            raise PlainPickleError(f"holds too long a number, got {count} bytes")
        if not 0 <= count <= self.size - self.tell():
            raise PlainPickleError(
                f"is cut off, got an end at byte {self.size} where {count} more are announced "
                f"at byte {self.tell()}"
            )
        return super().read(count)

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(_MAX_NUMBER_BYTES + 2 if self.reads_number else -1)
        if line.endswith(b"\n"):
            return line
        if len(line) > _MAX_NUMBER_BYTES and self.reads_number:
            raise PlainPickleError(f"holds too long a number, got over {_MAX_NUMBER_BYTES} digits")
        raise PlainPickleError(f"is cut off, got an end at byte {self.size} in a line")


def _find_global(module: object, name: object) -> _Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise PlainPickleError(f"names a global without text, got {describe(module)}")
    if known := _GLOBALS.get(f"{module} {name}"):
        return known
    full = f"{module}.{name}"[:80]
    raise PlainPickleError(f"asks for more than images and booleans, got the global {full!r}")


class _Machine:
    """A pickle's stack, marks and memo."""

    def __init__(self, data: bytes) -> None:
        self.stream = _Stream(data)
        self.stack: list = []
        self.outer: list[list] = []  # the stacks below the marks
        self.memo: dict[int, object] = {}
        self.to_encode = len(data)

    def run(self) -> object:
        """Take every opcode up to STOP; return what it leaves on the stack."""
        while True:
            code = self.stream.read(1)
            opcode = _OPCODES.get(code)
            name = repr(code) if opcode is None else opcode.name
            argument = partial(self.argument, opcode)
            match name:
                case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                    self.stack.append(_LITERALS[name])
                case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4":
                    self.stack.append(argument())
                case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                    self.stack.append(argument())
                case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                    self.stack.append(argument())
                case "BYTEARRAY8":  # here nothing changes it
                    self.stack.append(bytes(argument()))
                case "BINSTRING" | "SHORT_BINSTRING":  # Python 2's str
                    self.stack.append(argument().encode("latin1"))
                case "STRING":
                    self.stack.append(codecs.escape_decode(self.quoted())[0])
                case "MARK":
                    self.outer.append(self.stack)
                    self.stack = []
                case "EMPTY_LIST":
                    self.stack.append([])
                case "LIST":
                    items = self.pop_mark()
                    self.stack.append(items)
                case "APPEND":
                    item = self.stack.pop()
                    self.extend([item])
                case "APPENDS":
                    items = self.pop_mark()
                    self.extend(items)
                case "TUPLE":
                    items = self.pop_mark()
                    self.stack.append(tuple(items))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    items = [self.stack.pop() for _ in range(int(name[-1]))]
                    self.stack.append(tuple(reversed(items)))
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    self.put(argument())
                case "MEMOIZE":
                    self.put(len(self.memo))
                case "GET" | "BINGET" | "LONG_BINGET":
                    self.stack.append(self.memo[argument()])
                case "GLOBAL":
                    self.stream.reads_number = False
                    module, text = (self.stream.readline()[:-1].decode() for _ in range(2))
                    self.stack.append(_find_global(module, text))
                case "STACK_GLOBAL":
                    text, module = self.stack.pop(), self.stack.pop()
                    self.stack.append(_find_global(module, text))
                case "REDUCE":
                    arguments, target = self.stack.pop(), self.stack.pop()
                    self.stack.append(self.stand_in(target, arguments))
                case "BUILD":
                    self.build()
                case "PROTO":
                    if (protocol := argument()) > 5:
                        raise PlainPickleError(f"has an unknown pickle protocol, got {protocol}")
                case "FRAME":
                    argument()
                case "STOP":
                    return self.stack.pop()
                case _:
                    raise PlainPickleError(
                        f"holds more than images and booleans, got the opcode {name} at byte "
                        f"{self.stream.tell() - 1}"
                    )

    def argument(self, opcode: pickletools.OpcodeInfo | None) -> Any:
        assert opcode is not None and opcode.arg is not None
        self.stream.reads_number = not opcode.arg.name.startswith(_TEXT_ARGUMENTS)
        return opcode.arg.reader(self.stream)

    def quoted(self) -> bytes:
        # pickletools takes such text for ASCII; Python 2 wrote images so.
        self.stream.reads_number = False
        line = self.stream.readline().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise PlainPickleError(f"holds text without quotes, got {describe(line)}")
        return line[1:-1]

    def pop_mark(self) -> list:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def extend(self, items: list) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise PlainPickleError(f"appends to what is no list, got {describe(target)}")
        target.extend(items)

    def put(self, key: int) -> None:
        value = self.stack[-1]
        self.memo[key] = value
        if type(value) is _Unbuilt:
            value.keys.append(key)

    def stand_in(self, target: object, args: object) -> object:
        """Do for `target(*args)` what it would do with harmless arguments; refuse all others."""
        if not isinstance(target, _Global) or not isinstance(args, tuple):
            raise PlainPickleError(f"calls what it must not, got {describe(target)}")
        if target is _Global.ENCODE and len(args) == 2:
            text, codec = args
            if isinstance(text, str) and isinstance(codec, str) and codec in ("latin1", "latin-1"):
                # A pickle writes each text once. Encoding one again and again would fill memory.
                self.to_encode -= len(text)
                if self.to_encode >= 0:
                    return text.encode("latin1")
        elif target is _Global.BYTES and not args:
            return b""
        elif target is _Global.RECONSTRUCT and len(args) == 3:
            if args[0] is _Global.NDARRAY:  # shape and type code stand for nothing: a state follows
                return _Unbuilt(None)
        elif target is _Global.DTYPE and args:
            code = args[0].decode("latin1") if isinstance(args[0], bytes) else args[0]
            if isinstance(code, str) and code in _DTYPES:
                return _Unbuilt(np.dtype(code))
            raise PlainPickleError(
                f"holds an array that is not of bools or numbers, got the dtype {describe(code)}"
            )
        elif target is _Global.SCALAR and len(args) == 2:
            return _make_array(args[1], args[0], (), "C")[()]
        elif target is _Global.FROMBUFFER and len(args) in (4, 5):
            order, rest = args[3], args[4:]
            if isinstance(order, str) and order in ("C", "F") and all(x is None for x in rest):
                return _make_array(args[0], args[1], args[2], order)
        shown = ", ".join(describe(arg) for arg in args[:4])
        raise PlainPickleError(f"calls {target} as no set does, got the arguments ({shown})")

    def build(self) -> None:
        """Give the array or dtype below a state its value, on the stack and in the memo."""
        state, unbuilt = self.stack.pop(), self.stack.pop()
        if type(unbuilt) is not _Unbuilt or not isinstance(state, tuple):
            raise PlainPickleError(f"sets the state of what has none, got {describe(unbuilt)}")
        built: object
        if unbuilt.dtype is None:
            # (version, shape, dtype, whether in Fortran's order, data)
            if len(state) != 5 or type(state[3]) not in (bool, int):
                raise PlainPickleError(
                    f"sets an array's state as NumPy does not, got {len(state)} parts"
                )
            built = _make_array(state[4], state[2], state[1], "F" if state[3] else "C")
        else:
            built = self.build_dtype(unbuilt.dtype, state)
        for key in unbuilt.keys:
            if self.memo[key] is unbuilt:
                self.memo[key] = built
        self.stack.append(built)

    def build_dtype(self, dtype: np.dtype, state: tuple) -> np.dtype:
        """Apply (version, byte order, subarray, names, fields, size, alignment, flags)."""
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
