# SPDX-License-Identifier: Apache-2.0
"""Read the tensors of a ``.pth`` or ``.pt`` file without PyTorch, and without executing anything.

``torch.save`` has two formats.  A file of PyTorch 1.6 or later is a zip archive: ``data.pkl`` is a
pickle, and ``data/<key>`` holds the elements of a storage.  An older file is a sequence of pickles
(magic number, version, properties of the machine, object, keys of the storages), followed by the
elements of the storages.  The source is torch/serialization.py of PyTorch 2.13.
"""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from interchange.model import InterchangeError
from interchange.state_dict import CURE, StateDict, find_state_dict
from interchange.stored_tensor import StoredTensor, widen_bfloat16
from interchange.torch_pickle import ELEMENT_BYTES, Storage, TensorView, TorchObjects, text
from plain_pickle import PlainPickleError, describe, load_with

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x80\x02\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little")
LEGACY_VERSION = 1001
# For damaged archives, zipfile raises not only BadZipFile, but any of these errors.
_ZIP_FAULTS = (
    zipfile.BadZipFile,
    struct.error,
    ValueError,
    EOFError,
    LookupError,
    OverflowError,
    OSError,
    RuntimeError,
)


def read_torch_file(path: str | os.PathLike[str]) -> StateDict:
    """Read the state dict of a ``.pth`` or ``.pt`` file.

    The function reads the shapes only.  Calling ``read`` of a tensor reads the values.

    Parameters
    ----------
    path
        File that ``torch.save`` wrote: a state dict, or a dict that contains a state dict under one
        of `interchange.state_dict.NESTED_KEYS`.

    Raises
    ------
    InterchangeError
        If the file is damaged, is in another format, has no state dict, or names an object other
        than tensors, numbers and text.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            start = file.read(len(LEGACY_START))
    except OSError as error:
        raise InterchangeError(
            f"{path}: cannot be read as a PyTorch file, got {error.strerror!r}; name a .pth file"
        ) from None
    if start.startswith(b"PK"):
        content, read = _open_zip(path)
    elif start == LEGACY_START:
        content, read = _open_legacy(path)
    else:
        raise InterchangeError(
            f"{path}: is neither of the two formats of torch.save, got a file that starts with "
            f"{start[:8]!r}; {CURE}"
        )
    return find_state_dict(path, content, lambda view: _stored(view, read))


def _load(path: str, data: bytes | mmap.mmap, start: int = 0) -> tuple[object, int, TorchObjects]:
    """Read the pickle at byte ``start``; return its object, its end and its `TorchObjects`.

    The end is the position in ``data`` of the first byte after the pickle.
    """
    dialect = TorchObjects(encodable_characters=len(data))
    try:
        content, end = load_with(data, dialect, start)
    except PlainPickleError as error:
        raise InterchangeError(f"{path}: {error}; {CURE}") from None
    return content, end, dialect


# Zip format.


def _open_zip(path: str) -> tuple[object, Callable[[Storage], np.ndarray]]:
    """Read the pickle of an archive; return its object and a reader of the storages."""
    archive = _Archive(path)
    pickles = [name for name in archive.sizes if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InterchangeError(
            f"{path}: must contain one member data.pkl as torch.save writes it, got "
            f"{len(pickles)}; {CURE}"
        )
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in archive.sizes:
        raise InterchangeError(
            f"{path}: must contain weights alone, got a TorchScript program; {CURE}"
        )
    name = f"{folder}byteorder"
    order = archive.read(name) if name in archive.sizes else b"little"
    if order not in (b"little", b"big"):
        raise InterchangeError(
            f"{path}: must state the byte order 'little' or 'big', got {describe(order)}; {CURE}"
        )
    content, _, dialect = _load(path, archive.read(pickles[0]))
    for storage in dialect.storages.values():
        name = f"{folder}data/{storage.key}"
        size = archive.sizes.get(name, -1)
        if size < storage.size * ELEMENT_BYTES[storage.dtype]:
            raise InterchangeError(
                f"{path}: lacks the values of a storage of {storage.size} {storage.dtype}, got "
                f"{'no member' if size < 0 else f'{size} bytes in the member'} {name[-60:]!r}; "
                "copy or download the file again"
            )

    def read(storage: Storage) -> np.ndarray:
        data = archive.read(f"{folder}data/{storage.key}")
        return _elements(data, storage, ">" if order == b"big" else "<")

    return content, read


class _Archive:
    """Zip archive whose members are stored without compression.

    The constructor also checks that the members together are no larger than the file, so reading a
    member never needs more memory than the size of the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with self.faults():
            self.file = zipfile.ZipFile(path)  # closed when this object is released
            members = self.file.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise InterchangeError(
                    f"{path}: must be a zip archive without compression, got the compressed or "
                    f"encrypted member {member.filename[:60]!r}; {CURE}"
                )
        total = sum(member.file_size for member in members)
        if total > os.path.getsize(path):
            raise InterchangeError(
                f"{path}: must be at least as large as its members together, got "
                f"{os.path.getsize(path)} bytes for members of {total} bytes; {CURE}"
            )
        self.sizes: dict[str, int] = {each.filename: each.file_size for each in members}
        """Mapping from the name of a member to its size in bytes."""

    def read(self, name: str) -> bytes:
        with self.faults():
            return self.file.read(name)

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn the errors of a damaged archive into InterchangeError."""
        try:
            yield
        except _ZIP_FAULTS as error:
            raise InterchangeError(
                f"{self.path}: is a damaged zip archive, got {str(error)[:80]!r}; copy or download "
                "the file again"
            ) from None


# Legacy format.


def _open_legacy(path: str) -> tuple[object, Callable[[Storage], np.ndarray]]:
    """Read the pickles of a legacy file; return the object and a reader of the storages."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _, end, _ = _load(path, data)
        version, end, _ = _load(path, data, end)
        machine, end, _ = _load(path, data, end)
        content, end, dialect = _load(path, data, end)
        keys, end, _ = _load(path, data, end)
        if version != LEGACY_VERSION or type(machine) is not dict or type(keys) is not list:
            raise InterchangeError(
                f"{path}: must have version {LEGACY_VERSION} of the legacy format, a dict of "
                "properties of the machine and a list of storage keys, got "
                f"{describe(version)}, {describe(machine)} and {describe(keys)}; {CURE}"
            )
        little = machine.get("little_endian", machine.get(b"little_endian", True))
        order = "<" if little else ">"
        offsets = _find_storages(path, data, keys, position=end, storages=dialect.storages)
    for key in dialect.storages:
        if key not in offsets:
            raise InterchangeError(
                f"{path}: lacks the values of the storage {key[:60]!r}, got {len(offsets)} other "
                "storages; copy or download the file again"
            )

    def read(storage: Storage) -> np.ndarray:
        with open(path, "rb") as file:
            file.seek(offsets[storage.key])
            size = storage.size * ELEMENT_BYTES[storage.dtype]
            return _elements(file.read(size), storage, order)

    return content, read


def _find_storages(
    path: str, data: mmap.mmap, keys: list, *, position: int, storages: dict[str, Storage]
) -> dict[str, int]:
    """Return the position of the first element of each storage, by key of the storage.

    Positions are bytes from the start of the file.  The first storage starts at ``position``.  In
    front of its elements, a storage has their number as an integer of 8 bytes.
    """
    offsets = {}
    for key in map(text, keys):
        if key is None or key not in storages or key in offsets:
            raise InterchangeError(
                f"{path}: must list each storage of its tensors once, got {describe(key)}; copy or "
                "download the file again"
            )
        storage = storages[key]
        size = int.from_bytes(data[position : position + 8], "little")
        end = position + 8 + storage.size * ELEMENT_BYTES[storage.dtype]
        if end > len(data) or size != storage.size:
            raise InterchangeError(
                f"{path}: is truncated or damaged, got {size} elements and "
                f"{max(0, len(data) - position - 8)} remaining bytes for a storage of "
                f"{storage.size} {storage.dtype}; copy or download the file again"
            )
        offsets[key] = position + 8
        position = end
    return offsets


# Both formats.


def _elements(data: bytes, storage: Storage, order: str) -> np.ndarray:
    """Return the elements of a storage in native byte order; convert bfloat16 to float32."""
    bits = "uint16" if storage.dtype == "bfloat16" else storage.dtype
    dtype = np.dtype(order + np.dtype(bits).str[1:])
    elements = np.frombuffer(data, dtype, count=storage.size).astype(np.dtype(bits))
    return widen_bfloat16(elements) if storage.dtype == "bfloat16" else elements


def _stored(view: TensorView, read: Callable[[Storage], np.ndarray]) -> StoredTensor:
    def values() -> np.ndarray:
        if 0 in view.shape:
            return np.zeros(view.shape, np.float32)
        elements = read(view.storage)[view.offset :]
        strides = tuple(stride * elements.itemsize for stride in view.strides)
        # TorchObjects has checked that the view lies within the storage.
        return np.lib.stride_tricks.as_strided(elements, view.shape, strides, writeable=False)

    return StoredTensor(view.shape, view.storage.dtype, values)
