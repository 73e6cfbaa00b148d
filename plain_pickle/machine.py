# SPDX-License-Identifier: Apache-2.0
"""Read a pickle without executing anything in it, with a stack machine.

`pickle` imports and calls the objects that a file names.  Overriding `Unpickler.find_class` does
not stop every attack: the extension cache, attributes set by the opcode BUILD, and memo keys that
allocate gigabytes remain.  This module therefore executes the opcodes with its own stack machine,
which refuses all opcodes that the dialect of the file does not list and never calls an object that
the file names (see `plain_pickle.dialect`).  `pickletools` reads the arguments of the opcodes, but
`pickletools.genops` cannot be used, because it fails on the images that Python 2 wrote.
"""

from __future__ import annotations

import codecs
import mmap
import pickletools
from collections.abc import Callable
from typing import Any

from plain_pickle.arrays import Arrays
from plain_pickle.dialect import Dialect, PlainPickleError, Unbuilt, describe

_OPCODES = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}
_MAX_NUMBER_BYTES = 40  # largest number of bytes of a binary number, or of digits of a decimal one
_MAX_PROTOCOL = 5
# A pickle of n bytes may have `_ALWAYS_READ_OPCODES + n // _MIN_OPCODE_BYTES` opcodes.  This limit
# bounds the memory, because an opcode of one byte can create an object of 100 bytes.  A
# verification set has about 10 opcodes for each image.
_ALWAYS_READ_OPCODES = 1 << 20
_MIN_OPCODE_BYTES = 16
_MAX_INTEGER_KEY = 2**60  # an integer key of a dict must be smaller in absolute value
# Prefixes of pickletools' names for arguments that are text or bytes; other arguments are numbers.
_TEXT_ARGUMENTS = ("string", "unicodestring", "bytes", "bytearray")


def load_plain(data: bytes) -> object:
    """Read a pickle of bytes, str, bool, int, None, list, tuple and arrays of bools or numbers.

    Parameters
    ----------
    data
        The complete pickle, of protocol 0 to 5. Python 2's `str` becomes bytes.

    Raises
    ------
    PlainPickleError
        If the pickle is truncated or malformed, or holds an object of any other type.
    """
    dialect = Arrays(encodable_characters=len(data))
    dialect.max_opcodes = _ALWAYS_READ_OPCODES + len(data) // _MIN_OPCODE_BYTES
    return load_with(data, dialect)[0]


def load_with(data: bytes | mmap.mmap, dialect: Dialect, start: int = 0) -> tuple[object, int]:
    """Read one pickle; return its object and the position of the first byte behind the pickle.

    Parameters
    ----------
    data
        Bytes that contain the pickle.  Other bytes may precede and follow it.
    dialect
        Globals and opcodes that the pickle may contain.
    start
        Position of the first byte of the pickle.

    Raises
    ------
    PlainPickleError
        If the pickle is truncated or malformed, or the dialect refuses a part of it.
    """
    if not len(data):
        raise PlainPickleError("is empty, got 0 bytes")
    machine = _Machine(data, dialect, start)
    try:
        return machine.run(), machine.stream.tell()
    except PlainPickleError:
        raise
    except (IndexError, KeyError, ValueError, OverflowError) as error:
        # A malformed pickle causes these errors in the machine, for example by an empty stack, an
        # unknown memo key, or text that is no number.
        raise PlainPickleError(
            f"is malformed, got {type(error).__name__} while reading the bytes before byte "
            f"{machine.stream.tell()}"
        ) from None


class _Stream:
    """Stream of a pickle's bytes; a read beyond the end fails before it allocates memory."""

    def __init__(self, data: bytes | mmap.mmap, start: int) -> None:
        self.data = data
        self.size = len(data)
        self.position = start
        self.reads_number = False
        """True while the argument of the current opcode is a number."""

    def tell(self) -> int:
        return self.position

    def read(self, count: int) -> bytes:
        if self.reads_number and count > _MAX_NUMBER_BYTES:
            raise PlainPickleError(f"holds too long a number, got a number of {count} bytes")
        if not 0 <= count <= self.size - self.position:
            raise PlainPickleError(
                f"is cut off, got {self.size} bytes in total, but {count} bytes must follow byte "
                f"{self.position}"
            )
        self.position += count
        return self.data[self.position - count : self.position]

    def readline(self) -> bytes:
        limit = self.size
        if self.reads_number:
            limit = min(limit, self.position + _MAX_NUMBER_BYTES + 2)
        end = self.data.find(b"\n", self.position, limit) + 1
        if end:
            line = self.data[self.position : end]
            self.position = end
            return line
        if limit < self.size:
            raise PlainPickleError(
                f"holds too long a number, got over {_MAX_NUMBER_BYTES} characters"
            )
        raise PlainPickleError(f"is cut off, got {self.size} bytes that end inside a line")

    def read_argument(self, opcode: pickletools.OpcodeInfo) -> Any:
        """Read and return the argument of an opcode; return None if the opcode has no argument."""
        if opcode.arg is None:
            return None
        self.reads_number = not opcode.arg.name.startswith(_TEXT_ARGUMENTS)
        reader = _READERS.get(opcode.name)
        source: Any = self  # pickletools asks for no more than read and readline
        argument = opcode.arg.reader(source) if reader is None else reader(self)
        self.reads_number = False
        return argument

    def read_quoted(self) -> bytes:
        # Python 2 wrote images as quoted text, which pickletools would decode as ASCII.
        line = self.readline().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise PlainPickleError(f"holds text without quotes, got {describe(line)}")
        data: Any = codecs.escape_decode(line[1:-1])[0]  # bytes, although the type stubs say str
        return data

    def read_global(self) -> tuple[str, str]:
        # As in pickle, escapes in module and name stay undecoded; pickletools would decode them.
        return self.readline()[:-1].decode(), self.readline()[:-1].decode()


_READERS: dict[str, Callable[[_Stream], Any]] = {
    "STRING": _Stream.read_quoted,
    "GLOBAL": _Stream.read_global,
    "INST": _Stream.read_global,
}


class _Machine:
    """Stack machine that executes the opcodes of a pickle.

    `_ACTIONS` names the method for each opcode.  The method gets the argument of the opcode, or
    None if the opcode has no argument.
    """

    def __init__(self, data: bytes | mmap.mmap, dialect: Dialect, start: int) -> None:
        self.stream = _Stream(data, start)
        self.dialect = dialect
        self.stack: list = []
        self.outer: list[list] = []  # stacks that the opcode MARK has set aside, the newest last
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        """Execute the opcodes up to STOP; return the object that the pickle holds."""
        limit, count = self.dialect.max_opcodes, 0
        while True:
            if count == limit:
                self.dialect.refuse(f"more than {limit:,} opcodes")
            count += 1
            code = self.stream.read(1)
            opcode = _OPCODES.get(code)
            name = repr(code) if opcode is None else opcode.name
            if name == "STOP":
                return self.stack.pop()
            if opcode is None or name not in _ACTIONS or name not in self.dialect.opcodes:
                self.dialect.refuse(f"the opcode {name} at byte {self.stream.tell() - 1}")
            _ACTIONS[name](self, self.stream.read_argument(opcode))

    def push(self, value: object) -> None:
        self.stack.append(value)

    def push_latin1(self, text: str) -> None:
        self.stack.append(text.encode("latin1"))

    def mark(self, _: None) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def append(self, _: None) -> None:
        self.extend([self.stack.pop()])

    def appends(self, _: None) -> None:
        self.extend(self.pop_mark())

    def extend(self, items: list) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise PlainPickleError(f"appends to an object that is no list, got {describe(target)}")
        target.extend(items)

    def push_list(self, _: None) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def push_tuple(self, _: None) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def push_short_tuple(self, length: int) -> None:
        items = [self.stack.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(items)))

    def put(self, key: int) -> None:
        value = self.stack[-1]
        self.memo[key] = value
        if type(value) is Unbuilt:
            value.keys.append(key)

    def memoize(self, _: None) -> None:
        self.put(len(self.memo))

    def get(self, key: int) -> None:
        self.stack.append(self.memo[key])

    def push_global(self, module_and_name: tuple[str, str]) -> None:
        self.stack.append(self.dialect.find_global(*module_and_name))

    def push_stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.dialect.find_global(module, name))

    def check_protocol(self, protocol: int) -> None:
        if protocol > _MAX_PROTOCOL:
            raise PlainPickleError(f"has an unknown pickle protocol, got {protocol}")

    def skip(self, _: object) -> None:
        """Ignore the opcode FRAME, which only tells the number of bytes up to the next FRAME."""

    def reduce(self, _: None) -> None:
        """Pop a function and its arguments; push the result of the function's stand-in."""
        arguments, target = self.stack.pop(), self.stack.pop()
        self.stack.append(self.dialect.call(target, arguments))

    def build(self, _: None) -> None:
        """Pop an unbuilt object and its state; push the built object and put it into the memo."""
        state, target = self.stack.pop(), self.stack.pop()
        built = self.dialect.set_state(target, state)
        for key in target.keys if type(target) is Unbuilt else ():
            if self.memo[key] is target:
                self.memo[key] = built
        if type(target) is Unbuilt:
            # A pickle may build one object many times; update the memo only the first time.
            target.keys.clear()
        self.stack.append(built)

    def push_dict(self, _: None) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.set_pairs(items)

    def set_item(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_pairs([key, value])

    def set_items(self, _: None) -> None:
        self.set_pairs(self.pop_mark())

    def set_pairs(self, items: list) -> None:
        """Put keys and values, which alternate in ``items``, into the dict on top of the stack."""
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise PlainPickleError(
                "sets items that are not pairs, or sets them in an object that is no dict, got "
                f"{describe(target)}"
            )
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a key of nested tuples takes time without bound, and large integers with
            # equal hashes make a dict slow.
            if not isinstance(key, str | bytes) and not (
                type(key) in (int, bool) and abs(key) < _MAX_INTEGER_KEY
            ):
                raise PlainPickleError(
                    f"has a dict with a key that is not text or a number, got {describe(key)}"
                )
            target[key] = value

    def refuse_instance(self, module_and_name: tuple[str, str]) -> None:
        """Refuse the opcode INST, which names and calls a global; the error names the global."""
        self.dialect.refuse(f"a call of {self.dialect.find_global(*module_and_name)} by INST")

    def load_persistent(self, _: None) -> None:
        self.stack.append(self.dialect.load_persistent(self.stack.pop()))


_PUSHED_ARGUMENTS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 BINBYTES SHORT_BINBYTES BINBYTES8 STRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"
)
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(_PUSHED_ARGUMENTS.split(), _Machine.push),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), _Machine.push_latin1),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "BYTEARRAY8": lambda machine, data: machine.push(bytes(data)),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "MARK": _Machine.mark,
    "LIST": _Machine.push_list,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "TUPLE": _Machine.push_tuple,
    "TUPLE1": lambda machine, _: machine.push_short_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_short_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_short_tuple(3),
    "MEMOIZE": _Machine.memoize,
    "GLOBAL": _Machine.push_global,
    "STACK_GLOBAL": _Machine.push_stack_global,
    "INST": _Machine.refuse_instance,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "DICT": _Machine.push_dict,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "FLOAT": _Machine.push,
    "BINFLOAT": _Machine.push,
    "BINPERSID": _Machine.load_persistent,
    "PROTO": _Machine.check_protocol,
    "FRAME": _Machine.skip,
}
