# SPDX-License-Identifier: Apache-2.0
"""Pickles that ``torch.save`` writes: nested dicts and lists of tensors and numbers.

In such a pickle a tensor is a call of a PyTorch function.  The values of the tensor lie outside the
pickle, in a storage.  The source of the arguments is torch/_utils.py and torch/serialization.py of
PyTorch 2.13.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from plain_pickle import Arrays, KnownGlobal, PlainPickleError, describe
from plain_pickle.dialect import BASIC_OPCODES

MAX_AXES = 16
ELEMENT_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
"""Mapping from the name of an element type to the number of bytes of one element."""
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool",
}  # fmt: skip


class Function(KnownGlobal, Enum):
    """Functions and classes in pickles of PyTorch; a value is the name "<module> <name>"."""

    ORDERED_DICT = "collections OrderedDict"
    SIZE = "torch Size"
    TENSOR = "torch._utils _rebuild_tensor"
    TENSOR_V2 = "torch._utils _rebuild_tensor_v2"
    PARAMETER = "torch._utils _rebuild_parameter"
    PARAMETER_WITH_STATE = "torch._utils _rebuild_parameter_with_state"

    def __str__(self) -> str:
        return self.value.replace(" ", ".")


@dataclass(frozen=True)
class StorageType(KnownGlobal):
    """Class of a storage, such as torch.FloatStorage."""

    name: str
    dtype: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Storage:
    """Sequence of tensor elements that lies outside the pickle."""

    key: str
    dtype: str
    size: int
    """Number of elements."""


class TensorView(NamedTuple):
    """Tensor: a view of a storage.  ``offset`` and ``strides`` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_FUNCTIONS: dict[str, KnownGlobal] = {function.value: function for function in Function}
_STORAGE_TYPES: dict[str, KnownGlobal] = {
    f"{module} {name}Storage": StorageType(f"{module}.{name}Storage", dtype)
    for module in ("torch", "torch.cuda")
    for name, dtype in _STORAGES.items()
}


class TorchObjects(Arrays):
    """Contents of pickles of ``torch.save``, and how to read them.

    A tensor becomes a `TensorView`.  An OrderedDict becomes a dict; its attributes are dropped.

    Parameters
    ----------
    encodable_characters
        Largest number of characters of text that the whole pickle may convert to bytes.
    """

    content = "tensors, numbers and text"
    max_opcodes = 3_000_000  # a state dict of a thousand tensors has about 40,000 opcodes
    opcodes = BASIC_OPCODES | set(
        "EMPTY_DICT DICT SETITEM SETITEMS FLOAT BINFLOAT BINPERSID".split()
    )

    def __init__(self, encodable_characters: int) -> None:
        super().__init__(encodable_characters)
        self.storages: dict[str, Storage] = {}
        """Storages that the pickle names, by key."""

    def known_global(self, module_and_name: str) -> KnownGlobal | None:
        return (
            _FUNCTIONS.get(module_and_name)
            or _STORAGE_TYPES.get(module_and_name)
            or super().known_global(module_and_name)
        )

    def stand_in(self, target: KnownGlobal, arguments: tuple) -> object:
        if not isinstance(target, Function):
            return super().stand_in(target, arguments)
        function, counts = _STAND_INS[target]
        return function(*arguments) if len(arguments) in counts else None

    def set_state(self, target: object, state: object) -> object:
        # The pickled state of a state dict is its attribute _metadata, the versions of the modules,
        # which nothing here needs.
        if type(target) is dict and type(state) is dict:
            return target
        return super().set_state(target, state)

    def load_persistent(self, identifier: object) -> object:
        """Return the storage that a persistent identifier describes.

        The identifier is a tuple ("storage", type, key, device, number of elements), in old files
        with None as a sixth entry.
        """
        parts = identifier if isinstance(identifier, tuple) else ()
        if (
            len(parts) not in (5, 6)
            or text(parts[0]) != "storage"
            or parts[5:] not in ((), (None,))
        ):
            self.refuse(f"the persistent identifier {describe(parts[0] if parts else identifier)}")
        kind, key, size = parts[1], text(parts[2]), parts[4]
        if not isinstance(kind, StorageType) or key is None or not _is_count(size):
            raise PlainPickleError(
                f"has a storage whose type, key or size is invalid, got {describe(kind)}, "
                f"{describe(parts[2])} and {describe(size)}"
            )
        storage = self.storages.setdefault(key, Storage(key, kind.dtype, size))
        if storage != Storage(key, kind.dtype, size):
            raise PlainPickleError(
                f"has two descriptions of one storage, got {storage.size} {storage.dtype} and "
                f"{size} {kind.dtype} for the key {key[:60]!r}"
            )
        return storage


def text(value: object) -> str | None:
    """Return text as str, or None for other values; text of Python 2 arrives as bytes."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    return value if isinstance(value, str) else None


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _make_dict(pairs: object = ()) -> object:
    """Return a dict of (key, value) pairs; Python 2 stores each pair as a list."""
    if not isinstance(pairs, list | tuple):
        return None
    made = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or text(pair[0]) is None:
            return None
        made[pair[0]] = pair[1]
    return made


def _make_size(sizes: object) -> object:
    return tuple(sizes) if isinstance(sizes, list | tuple) else None


def _make_tensor(
    storage: object, offset: object, shape: object, strides: object, *_unused: object
) -> TensorView | None:
    """Return a tensor as a view of its storage; the unused arguments concern gradients."""
    if not isinstance(storage, Storage) or not isinstance(shape, tuple):
        return None
    if not isinstance(strides, tuple) or len(strides) != len(shape) or len(shape) > MAX_AXES:
        return None
    if not _is_count(offset) or not all(map(_is_count, shape + strides)):
        return None
    assert isinstance(offset, int)
    elements = 1
    for side in shape:
        elements *= side
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if elements and (last >= storage.size or elements > storage.size):
        raise PlainPickleError(
            f"has a tensor that is larger than its storage, got the shape {shape} with the strides "
            f"{strides} from element {offset} of {storage.size}"
        )
    return TensorView(storage, offset, shape, strides)


def _make_parameter(data: object, *_unused: object) -> TensorView | None:
    return data if isinstance(data, TensorView) else None


# Mapping from a function that a pickle names to the function that is called instead of it, and to
# the numbers of arguments that a call may have.
_STAND_INS: dict[Function, tuple[Callable[..., object], tuple[int, ...]]] = {
    Function.ORDERED_DICT: (_make_dict, (0, 1)),
    Function.SIZE: (_make_size, (1,)),
    Function.TENSOR: (_make_tensor, (4,)),
    Function.TENSOR_V2: (_make_tensor, (6, 7)),
    Function.PARAMETER: (_make_parameter, (3,)),
    Function.PARAMETER_WITH_STATE: (_make_parameter, (4,)),
}
