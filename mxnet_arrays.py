# SPDX-License-Identifier: Apache-2.0
"""Read and write MXNet's files of named arrays (``.params``) with NumPy alone.

``mx.nd.load`` trusts the sizes that a file states and may end the process on a damaged file.
``read_arrays`` checks every stated size against the length of the file before it uses the size.

A file consists of these parts in this order: a header (magic number, 0), the number of arrays, the
arrays, the number of names, the names.  All numbers are little-endian.  MXNet has four layouts of
an array.  The source is src/ndarray/ndarray.cc of MXNet 1.9.1, ``NDArray::Save`` and
``NDArray::LegacyLoad``.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np

FILE_MAGIC = 0x112
# Magic numbers at the start of an array.  The layout before LAYOUT_1 has no magic number and starts
# with the number of dimensions.
LAYOUT_1, LAYOUT_2, LAYOUT_3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DTYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8", "?")
"""NumPy names of the element types, in the order of MXNet's type numbers."""
CPU = 1
MAX_DIMENSIONS = 32
MAX_NAME_BYTES = 4096
MAX_ARRAYS = 100_000


class ArrayFileError(ValueError):
    """Error for a file that is not a valid file of MXNet arrays."""


class _Reader:
    """Reader of the bytes of a file, which checks that every read stays within the file."""

    def __init__(self, path: str, content: Any) -> None:
        self.path, self.content, self.position = path, content, 0

    @property
    def remaining(self) -> int:
        return len(self.content) - self.position

    def fault(self, what: str, found: object) -> ArrayFileError:
        return ArrayFileError(
            f"{self.path}: {what}, got {found}; use an undamaged file that MXNet has saved"
        )

    def skip(self, count: int, what: str) -> None:
        if count > self.remaining:
            raise self.fault(
                f"is truncated: {what} needs {count:,} bytes at byte {self.position:,}",
                f"{self.remaining:,} bytes",
            )
        self.position += count

    def take(self, count: int, what: str) -> bytes:
        self.skip(count, what)
        return self.content[self.position - count : self.position]

    def numbers(self, kinds: str, what: str) -> tuple[int, ...]:
        kinds = f"<{kinds}"
        return struct.unpack(kinds, self.take(struct.calcsize(kinds), what))

    def count(self, minimum_bytes: int, what: str) -> int:
        """Read a number of entries, each of which takes at least ``minimum_bytes`` in the file."""
        (count,) = self.numbers("Q", f"the number of {what}")
        if count * minimum_bytes > self.remaining:
            raise self.fault(f"is too short for its number of {what}", f"{count:,} {what}")
        if count > MAX_ARRAYS:
            raise self.fault(f"must have at most {MAX_ARRAYS:,} {what}", f"{count:,} {what}")
        return count


class SupportsWrite(Protocol):
    """Object with the method ``write`` of a binary file."""

    def write(self, content: Any, /) -> object:
        """Write bytes."""


class ArrayPlace(NamedTuple):
    """Place of an array in a file."""

    offset: int
    """Position of the first element, in bytes from the start of the file."""
    dtype: np.dtype
    shape: tuple[int, ...]


class RowBlocks(NamedTuple):
    """Array that `write_arrays` gets in blocks of rows, so that memory never holds all rows.

    The blocks are arrays of type ``dtype`` and shape (rows, *shape[1:]); together they have
    ``shape[0]`` rows.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Iterable[np.ndarray]


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the arrays of a file, keyed by name.

    In a file that ``mx.nd.save`` wrote from a list, the arrays have no names; the result names them
    "0", "1" and so on.  The memory that the function uses is at most the size of the file, plus a
    constant.

    Raises
    ------
    ArrayFileError
        If the file is damaged, or contains sparse arrays or an unknown element type.
    OSError
        If the file cannot be read.
    """
    with _mapped(path) as content:
        found = {}
        for name, place in _read(_Reader(os.fspath(path), content)).items():
            count = math.prod(place.shape)
            found[name] = np.zeros(place.shape, place.dtype)
            if count:
                # A view of the file would prevent the file from being closed.
                found[name][...] = np.frombuffer(content, place.dtype, count, place.offset).reshape(
                    place.shape
                )
        return found


def find_arrays(path: str | os.PathLike[str]) -> dict[str, ArrayPlace]:
    """Check a file of arrays without reading the elements; return each array's place by name.

    Raises
    ------
    ArrayFileError, OSError
        In the cases of `read_arrays`.
    """
    with _mapped(path) as content:
        return _read(_Reader(os.fspath(path), content))


@contextmanager
def _mapped(path: str | os.PathLike[str]) -> Iterator[mmap.mmap]:
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise ArrayFileError(
                f"{os.fspath(path)}: is not a file of MXNet arrays, got an empty file; use an "
                "undamaged file that MXNet has saved"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def _read(reader: _Reader) -> dict[str, ArrayPlace]:
    header = reader.numbers("QQ", "the header")
    if header[0] != FILE_MAGIC:
        raise reader.fault(
            f"does not begin with {FILE_MAGIC:#x} like a file of MXNet arrays", f"{header[0]:#x}"
        )
    arrays = [_read_array(reader, i) for i in range(reader.count(4, "arrays"))]
    names = [_read_name(reader) for _ in range(reader.count(8, "names"))]
    if reader.remaining:
        raise reader.fault("has bytes after its last name", f"{reader.remaining:,} bytes")
    if not names:
        names = [str(index) for index in range(len(arrays))]
    if len(names) != len(arrays):
        raise reader.fault(f"must have one name for each of its {len(arrays):,} arrays", len(names))
    if len({*names}) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise reader.fault("must have different names", f"{twice!r} more than once")
    return dict(zip(names, arrays, strict=True))


def _read_array(reader: _Reader, index: int) -> ArrayPlace:
    what = f"array {index}"
    (magic,) = reader.numbers("I", what)
    if magic in (LAYOUT_2, LAYOUT_3):
        (storage,) = reader.numbers("i", what)
        if storage != 0:
            raise reader.fault(f"{what} must be dense (storage type 0)", f"storage type {storage}")
    shape = _read_shape(reader, magic, what)
    if shape is None:
        return ArrayPlace(0, np.dtype(np.float32), (0,))
    _device, _number, kind = reader.numbers("iii", what)
    if not 0 <= kind < len(DTYPES):
        raise reader.fault(f"{what} has an unknown element type", f"type number {kind}")
    dtype = np.dtype(DTYPES[kind])
    place = ArrayPlace(reader.position, dtype, shape)
    reader.skip(math.prod(shape) * dtype.itemsize, f"{what} of shape {shape}")
    return place


def _read_shape(reader: _Reader, magic: int, what: str) -> tuple[int, ...] | None:
    """Read the shape of an array; return None for an array without data."""
    known = magic in (LAYOUT_1, LAYOUT_2, LAYOUT_3)
    dimensions = reader.numbers("i", what)[0] if known else magic
    if dimensions == (-1 if magic == LAYOUT_3 else 0):
        return None
    if not 0 <= dimensions <= MAX_DIMENSIONS:
        raise reader.fault(f"{what} must have at most {MAX_DIMENSIONS} dimensions", dimensions)
    shape = reader.numbers(f"{dimensions}{'q' if known else 'I'}", f"the shape of {what}")
    if min(shape, default=0) < 0:
        raise reader.fault(f"{what} has a negative dimension", f"shape {shape}")
    return shape


def _read_name(reader: _Reader) -> str:
    (length,) = reader.numbers("Q", "the length of a name")
    if length > MAX_NAME_BYTES:
        raise reader.fault(f"a name must have at most {MAX_NAME_BYTES} bytes", f"{length:,}")
    name = bytes(reader.take(length, "a name"))
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise reader.fault("a name must be text in UTF-8", repr(name[:40])) from None


def write_arrays(file: SupportsWrite, arrays: Mapping[str, np.ndarray | RowBlocks]) -> None:
    """Write arrays in MXNet's format; ``mx.nd.load`` of MXNet 1.x reads the file.

    Raises
    ------
    TypeError
        If MXNet does not support the element type of an array, or if an array has 0 dimensions.
    ValueError
        If the blocks of an array have more or fewer rows than its shape states.
    """
    file.write(struct.pack("<QQQ", FILE_MAGIC, 0, len(arrays)))
    numbers = {np.dtype(name): number for number, name in enumerate(DTYPES)}
    for name, array in arrays.items():
        shape, dtype = array.shape, array.dtype
        if dtype not in numbers or not shape:
            raise TypeError(
                f"{name}: MXNet stores no array of {len(shape)} dimensions and type {dtype}"
            )
        header = struct.pack(f"<Iii{len(shape)}q", LAYOUT_2, 0, len(shape), *shape)
        file.write(header + struct.pack("<iii", CPU, 0, numbers[dtype]))
        rows = 0
        for block in array.blocks if isinstance(array, RowBlocks) else (array,):
            file.write(np.ascontiguousarray(block, dtype).data)
            rows += len(block)
        if rows != shape[0]:
            raise ValueError(f"{name}: must have {shape[0]} rows, got {rows}; pass all rows")
    file.write(struct.pack("<Q", len(arrays)))
    for name in arrays:
        encoded = name.encode()
        file.write(struct.pack("<Q", len(encoded)) + encoded)
