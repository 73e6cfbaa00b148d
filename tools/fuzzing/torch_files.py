# SPDX-License-Identifier: Apache-2.0
"""Write files in the formats of torch.save, without PyTorch."""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {"float32": "Float", "float64": "Double", "float16": "Half", "int64": "Long"}


class _StorageType:
    """Base of the classes that replace torch.FloatStorage and PyTorch's other storage classes."""


class Storage:
    """Elements of one or several tensors.

    ``kind`` is the first part of the name of its PyTorch class: "Float" for torch.FloatStorage.
    """

    def __init__(self, elements: np.ndarray, kind: str | None = None) -> None:
        self.elements, self.kind = elements, kind or KINDS[str(elements.dtype)]


class Tensor:
    """Tensor that is pickled as a call of torch._utils._rebuild_tensor_v2.

    ``offset`` and ``strides`` count elements of the storage.
    """

    function = "_rebuild_tensor_v2"

    def __init__(self, storage: Storage, offset: int, shape: tuple, strides: tuple) -> None:
        self.arguments: tuple[Any, ...] = (storage, offset, shape, strides, False, {})

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return getattr(sys.modules["torch._utils"], self.function), self.arguments


class Parameter(Tensor):
    """Tensor that is pickled as a torch.nn.Parameter."""

    function = "_rebuild_parameter"

    def __init__(self, tensor: Tensor) -> None:
        self.arguments = (tensor, True, {})


def tensor(values: np.ndarray, kind: str | None = None) -> Tensor:
    """Return a contiguous tensor with a storage of its own."""
    values = np.asarray(values)
    strides = tuple(side // values.itemsize for side in np.ascontiguousarray(values).strides)
    return Tensor(Storage(values.reshape(-1), kind), 0, values.shape, strides[: values.ndim])


@contextlib.contextmanager
def fake_torch() -> Iterator[types.ModuleType]:
    """Replace torch and torch._utils by stubs during a with block; yield the stub of torch."""
    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}
    for kind in ("Float", "Double", "Half", "Long", "BFloat16"):
        name = f"{kind}Storage"
        setattr(modules["torch"], name, type(name, (_StorageType,), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda *_: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(modules["torch._utils"], name, function)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield modules["torch"]
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def dump(content: object) -> tuple[bytes, dict[str, Storage]]:
    """Return the pickle of an object, and the storages of its tensors by key."""
    storages: dict[int, tuple[str, Storage]] = {}
    file = io.BytesIO()
    with fake_torch() as torch:

        class Pickler(pickle.Pickler):
            def persistent_id(self, obj: Any) -> Any:
                if not isinstance(obj, Storage):
                    return None
                key = storages.setdefault(id(obj), (str(len(storages)), obj))[0]
                kind = getattr(torch, f"{obj.kind}Storage")
                return ("storage", kind, key, "cpu", len(obj.elements))

        Pickler(file, protocol=2).dump(content)
    return file.getvalue(), dict(storages.values())


def save_zip(path: Path, content: object, *, compression: int = zipfile.ZIP_STORED) -> None:
    """Write an object in the format of PyTorch 1.6 and newer."""
    data, storages = dump(content)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", data)
        archive.writestr("model/byteorder", b"little")
        for key, storage in storages.items():
            archive.writestr(f"model/data/{key}", storage.elements.tobytes())
        archive.writestr("model/version", b"3\n")


def save_legacy(path: Path, content: object) -> None:
    """Write an object in the format of PyTorch before 1.6."""
    data, storages = dump(content)
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    with path.open("wb") as file:
        for header in (0x1950A86A20F9469CFC6C, 1001, machine):
            pickle.dump(header, file, protocol=2)
        file.write(data)
        pickle.dump(sorted(storages), file, protocol=2)
        for key in sorted(storages):
            file.write(len(storages[key].elements).to_bytes(8, "little"))
            file.write(storages[key].elements.tobytes())


SAVERS = {"zip": save_zip, "legacy": save_legacy}
"""Functions that write an object to a path, by format."""
