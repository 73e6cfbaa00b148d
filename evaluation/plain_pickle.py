# SPDX-License-Identifier: Apache-2.0
"""Read a pickle that holds plain data and NumPy arrays, and run nothing that is in it.

`pickle` imports and calls what a file names, and its `find_class` hook leaves ways round it (the
extension cache, attributes set by BUILD, a memo index that asks for gigabytes). This is a stack
machine of its own instead: opcodes not listed here do not exist, a global is a name compared with
a list, and what such a name stands for is written out below. No object of the file is ever called.
"""

from __future__ import annotations

import codecs
import pickletools
from collections.abc import Callable
from enum import Enum

import numpy as np


class PlainPickleError(ValueError):
    """The pickle is malformed or holds more than plain data: "<what is wrong>, got <value>"."""


class _Global(Enum):
    """What a file may name; the machine below says what becomes of it."""

    ENCODE = "_codecs.encode"
    BYTES = "bytes"
    NDARRAY = "numpy.ndarray"
    DTYPE = "numpy.dtype"
    RECONSTRUCT = "numpy.core.multiarray._reconstruct"
    SCALAR = "numpy.core.multiarray.scalar"
    FROMBUFFER = "numpy.core.numeric._frombuffer"


_GLOBALS = {
    ("_codecs", "encode"): _Global.ENCODE,  # bytes at protocols 0 to 2, written by Python 3
    ("__builtin__", "bytes"): _Global.BYTES,  # and so b"": bytes()
    ("builtins", "bytes"): _Global.BYTES,
    ("numpy", "ndarray"): _Global.NDARRAY,
    ("numpy", "dtype"): _Global.DTYPE,
    ("numpy.core.multiarray", "_reconstruct"): _Global.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _Global.RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): _Global.SCALAR,
    ("numpy._core.multiarray", "scalar"): _Global.SCALAR,
    ("numpy.core.numeric", "_frombuffer"): _Global.FROMBUFFER,  # protocol 5
    ("numpy._core.numeric", "_frombuffer"): _Global.FROMBUFFER,
}

# No object dtype: its data would be pointers. No structured one: objects could hide in it.
_DTYPES = frozenset("b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split())
_OPCODE_NAMES = {opcode.code: opcode.name for opcode in pickletools.opcodes}
_MAX_INT_BYTES = 16
_MAX_INT_DIGITS = 40


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
            f"is not a whole pickle, got {type(error).__name__} before byte {machine.at}"
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
        return f"the global {value.value}"
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


class _Machine:
    """A pickle's stack, marks and memo, and one method for every opcode that is allowed."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list = []
        self.outer: list[list] = []  # the stacks below the marks
        self.memo: dict[int, object] = {}
        self.to_encode = len(data)

    def run(self) -> object:
        while True:
            code = self.take(1)
            if code == b".":
                return self.stack.pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                name = _OPCODE_NAMES.get(code.decode("latin1"), repr(code))
                raise PlainPickleError(
                    f"holds more than images and booleans, got the opcode {name} at byte "
                    f"{self.at - 1}"
                )
            operation(self)

    # -- reading

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise PlainPickleError(
                f"is cut off, got an end at byte {len(self.data)} where {count} more are announced "
                f"at byte {self.at}"
            )
        chunk = self.data[self.at : end]
        self.at = end
        return chunk

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise PlainPickleError(f"is cut off, got an end at byte {len(self.data)} in a line")
        chunk = self.data[self.at : end]
        self.at = end + 1
        return chunk

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def text_number(self, text: bytes) -> int:
        if len(text) > _MAX_INT_DIGITS:
            raise PlainPickleError(f"holds too long a number, got {len(text)} digits")
        return int(text)

    def pop_mark(self) -> list:
        items, self.stack = self.stack, self.outer.pop()
        return items

    # -- opcodes

    def skip_protocol(self) -> None:
        protocol = self.number(1)
        if protocol > 5:
            raise PlainPickleError(f"has an unknown pickle protocol, got {protocol}")

    def skip_frame(self) -> None:
        self.take(8)

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def make_list(self) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def make_tuple(self) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def short_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def extend(self, items: list) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise PlainPickleError(f"appends to what is no list, got {describe(target)}")
        target.extend(items)

    def append(self) -> None:
        item = self.stack.pop()
        self.extend([item])

    def appends(self) -> None:
        items = self.pop_mark()
        self.extend(items)

    def text_int(self) -> None:
        line = self.line()
        # Protocols 0 and 1 write booleans so.
        special = {b"00": False, b"01": True}.get(line)
        self.stack.append(self.text_number(line) if special is None else special)

    def text_long(self) -> None:
        self.stack.append(self.text_number(self.line().rstrip(b"L")))

    def signed_int(self) -> None:
        self.stack.append(int.from_bytes(self.take(4), "little", signed=True))

    def long(self, size: int) -> None:
        count = self.number(size)
        if count > _MAX_INT_BYTES:
            raise PlainPickleError(f"holds too long a number, got {count} bytes")
        self.stack.append(int.from_bytes(self.take(count), "little", signed=True))

    def text_bytes(self) -> None:
        line = self.line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise PlainPickleError(f"holds text without quotes, got {describe(line)}")
        self.stack.append(codecs.escape_decode(line[1:-1])[0])

    def text_str(self) -> None:
        self.stack.append(self.line().decode("raw-unicode-escape"))

    def counted_bytes(self, size: int) -> None:
        self.stack.append(self.take(self.number(size)))

    def counted_str(self, size: int) -> None:
        self.stack.append(self.take(self.number(size)).decode("utf-8", "surrogatepass"))

    def put(self, key: int) -> None:
        value = self.stack[-1]
        self.memo[key] = value
        if type(value) is _Unbuilt:
            value.keys.append(key)

    def get(self, key: int) -> None:
        self.stack.append(self.memo[key])

    def named_global(self) -> None:
        module, name = self.line(), self.line()
        self.push_global(module.decode("utf-8"), name.decode("utf-8"))

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push_global(module, name)

    def push_global(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PlainPickleError(f"names a global without text, got {describe(module)}")
        known = _GLOBALS.get((module, name))
        if known is None:
            full = f"{module}.{name}"
            raise PlainPickleError(
                f"asks for more than images and booleans, got the global {full[:80]!r}"
            )
        self.stack.append(known)

    def reduce(self) -> None:
        args, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, _Global) or not isinstance(args, tuple):
            raise PlainPickleError(f"calls what it must not, got {describe(target)}")
        self.stack.append(self.stand_in(target, args))

    def stand_in(self, target: _Global, args: tuple) -> object:
        """Do for `target(*args)` what it would do with harmless arguments; refuse all others."""
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
        raise PlainPickleError(f"calls {target.value} as no set does, got the arguments ({shown})")

    def build(self) -> None:
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


_OPERATIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.skip_protocol,
    b"\x95": _Machine.skip_frame,
    b"(": _Machine.mark,
    b"]": lambda m: m.stack.append([]),
    b"l": _Machine.make_list,
    b"a": _Machine.append,
    b"e": _Machine.appends,
    b")": lambda m: m.stack.append(()),
    b"t": _Machine.make_tuple,
    b"\x85": lambda m: m.short_tuple(1),
    b"\x86": lambda m: m.short_tuple(2),
    b"\x87": lambda m: m.short_tuple(3),
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b"I": _Machine.text_int,
    b"L": _Machine.text_long,
    b"J": _Machine.signed_int,
    b"K": lambda m: m.stack.append(m.number(1)),
    b"M": lambda m: m.stack.append(m.number(2)),
    b"\x8a": lambda m: m.long(1),
    b"\x8b": lambda m: m.long(4),
    b"S": _Machine.text_bytes,  # Python 2's str in three sizes
    b"T": lambda m: m.counted_bytes(4),
    b"U": lambda m: m.counted_bytes(1),
    b"C": lambda m: m.counted_bytes(1),
    b"B": lambda m: m.counted_bytes(4),
    b"\x8e": lambda m: m.counted_bytes(8),
    b"\x96": lambda m: m.counted_bytes(8),  # a bytearray: here nothing changes it
    b"V": _Machine.text_str,
    b"\x8c": lambda m: m.counted_str(1),
    b"X": lambda m: m.counted_str(4),
    b"\x8d": lambda m: m.counted_str(8),
    b"p": lambda m: m.put(m.text_number(m.line())),
    b"q": lambda m: m.put(m.number(1)),
    b"r": lambda m: m.put(m.number(4)),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"g": lambda m: m.get(m.text_number(m.line())),
    b"h": lambda m: m.get(m.number(1)),
    b"j": lambda m: m.get(m.number(4)),
    b"c": _Machine.named_global,
    b"\x93": _Machine.stack_global,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
}
