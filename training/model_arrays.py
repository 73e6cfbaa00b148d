# SPDX-License-Identifier: Apache-2.0
"""Arrays of a model that a checkpoint holds: parameters, momentum, and rows of a distributed head.

On each rank, a distributed head has only the rows of the classes of that rank (heads/shard.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np

from heads.shard import PER_CLASS_PARAMETERS, Shard
from mxnet_arrays import RowBlocks
from training.checkpoint_arrays import to_ndarray
from training.checkpoint_files import CheckpointError
from training.shard_files import MOMENTUM_SUFFIX, PREFIX
from training.stored_rows import StoredRows, block_ranges

if TYPE_CHECKING:
    from mxnet import gluon

    from training.step import Model

CURE = "use the configuration with which the checkpoint was trained"


def shard_of(head: gluon.Block) -> Shard | None:
    """Return the shard of a distributed head; None for a head that is complete on every rank."""
    shard: Shard | None = getattr(head, "shard", None)
    return shard


def per_class_names(head: gluon.Block) -> list[str]:
    """Return the names of the head's parameters that have rows for each class."""
    own = head._collect_params_with_prefix()
    return [name for name in PER_CLASS_PARAMETERS if name in own]


def distributed_names(head: gluon.Block) -> list[str]:
    """Return the names (possibly none) of the parameters whose rows are divided among the ranks."""
    return per_class_names(head) if shard_of(head) else []


def block_arrays(block: gluon.Block) -> dict[str, mx.nd.NDArray]:
    """Return the parameters of a net or head that are equal on all ranks, by name."""
    named, skipped = block._collect_params_with_prefix(), distributed_names(block)
    return {name: p.list_data()[0] for name, p in named.items() if name not in skipped}


def momentum_arrays(model: Model, *, distributed: bool = False) -> dict[str, mx.nd.NDArray]:
    """Return the momentum of the parameters, by the names of ``Model.parameters``.

    Parameters
    ----------
    distributed
        True for the parameters whose rows are divided among the ranks, False for all others.
    """
    found: dict[str, mx.nd.NDArray] = {}
    for trainer in _trainers(model):
        states = trainer._updaters[0].states
        for name, index in _indices(model, trainer).items():
            if states.get(index) is not None:
                found[name] = states[index]
    found |= _momentum_of_head(model.head)
    rows = {f"head.{name}" for name in distributed_names(model.head)}
    return {name: array for name, array in found.items() if (name in rows) == distributed}


def shard_arrays(model: Model) -> dict[str, RowBlocks]:
    """Return the arrays of the shard of this rank, by their names in the file of the shard."""
    shard = shard_of(model.head)
    assert shard is not None
    momentum = momentum_arrays(model, distributed=True)
    found = {}
    for name in distributed_names(model.head):
        array = model.parameters[f"head.{name}"].list_data()[0]
        found[f"{PREFIX}{name}"] = _rows_of_shard(array, shard)
        if f"head.{name}" in momentum:
            rows = _rows_of_shard(momentum[f"head.{name}"], shard)
            found[f"{PREFIX}{name}{MOMENTUM_SUFFIX}"] = rows
    return found


def load_parameters(
    saved: Mapping[str, StoredRows],
    path: Path,
    block: gluon.Block,
    ctx: mx.Context | None,
    *,
    what: str,
) -> None:
    """Load stored arrays into a block; raise CheckpointError if a name or shape differs.

    Parameters
    ----------
    saved
        Arrays by parameter name.
    path
        Path of the file of the arrays, for messages.
    what
        Name of the block in messages: "net" or "head".
    """
    own, distributed = block._collect_params_with_prefix(), distributed_names(block)
    for name in sorted({*saved, *own}):
        if name not in saved:
            raise CheckpointError(
                f"{path}: does not fit this {what}, got no parameter {name!r}; {CURE}"
            )
        if name not in own:
            raise CheckpointError(
                f"{path}: does not fit this {what}, got the parameter {name!r}, which this {what} "
                f"lacks; {CURE}"
            )
        if name in distributed:
            shape = tuple(own[name].shape)
            _require_rows(path, name, shape, saved[name].shape, shard_of(block))
        elif saved[name].shape != tuple(own[name].shape):
            raise CheckpointError(
                f"{path}: does not fit this {what}, whose parameter {name!r} has shape "
                f"{tuple(own[name].shape)}, got shape {saved[name].shape}; {CURE}"
            )
    for name, parameter in own.items():
        if name in distributed:
            _copy_rows(parameter.list_data()[0], saved[name], shard_of(block))
        else:
            parameter._load_init(to_ndarray(np.asarray(saved[name])), ctx or mx.cpu())


def load_momentum(model: Model, saved: Mapping[str, StoredRows], path: Path) -> None:
    """Load stored momentum into a model; raise CheckpointError if a name or shape differs.

    Parameters
    ----------
    saved
        Momentum by the names of ``Model.parameters``.  For a parameter whose rows are
        divided among the ranks, the momentum has the rows of all classes.
    path
        Path of the file of the momentum, for messages.
    """
    own = _momentum_of_head(model.head)
    places = {
        name: (trainer, index)
        for trainer in _trainers(model)
        for name, index in _indices(model, trainer).items()
    }
    distributed = {f"head.{name}" for name in distributed_names(model.head)}
    for name, rows in saved.items():
        shape = own[name].shape if name in own else None
        shape = tuple(model.parameters[name].shape) if name in places else shape
        if shape is not None and name in distributed:
            _require_rows(path, name, shape, rows.shape, shard_of(model.head))
        elif rows.shape != shape:
            found = "no parameter" if shape is None else f"shape {shape}"
            raise CheckpointError(
                f"{path}: does not fit this model, which has {found} for the momentum {name!r}, "
                f"got shape {rows.shape}; {CURE}"
            )
    for name, rows in saved.items():
        shard = shard_of(model.head) if name in distributed else None
        if name in own:
            _copy_rows(own[name], rows, shard)
            continue
        trainer, index = places[name]
        parameter = model.parameters[name]
        array = mx.nd.zeros(parameter.shape, parameter.list_ctx()[0])
        _copy_rows(array, rows, shard)
        updater = trainer._updaters[0]
        updater.states[index] = array
        updater.states_synced[index] = True


def _indices(model: Model, trainer: gluon.Trainer) -> dict[str, int]:
    """Return the index of each parameter in the parameter list of a trainer, by name."""
    indices = {id(p): i for i, p in enumerate(trainer._params)}
    return {n: indices[id(p)] for n, p in model.parameters.items() if id(p) in indices}


def _trainers(model: Model) -> Iterator[gluon.Trainer]:
    yield model.trainer
    if model.shard_trainer is not None:
        yield model.shard_trainer


def _momentum_of_head(head: gluon.Block) -> dict[str, mx.nd.NDArray]:
    """Return the momentum of a head that updates its own class centres.

    The keys of the dict are ``head.<name>``.  The dict is empty for a head that a trainer updates.
    """
    return {f"head.{name}": array for name, array in getattr(head, "momentum", {}).items()}


def _rows_of_shard(array: mx.nd.NDArray, shard: Shard) -> RowBlocks:
    """Return the rows of the classes of a shard; no rows if the shard has no classes."""
    count = array.shape[0] if shard.num_rows else 0
    shape, dtype = (count, *array.shape[1:]), np.dtype(array.dtype)
    row_bytes = array.size // array.shape[0] * dtype.itemsize
    blocks = (array[a:b].asnumpy() for a, b in block_ranges(0, count, row_bytes))
    return RowBlocks(shape, dtype, blocks)


def _copy_rows(target: mx.nd.NDArray, rows: StoredRows, shard: Shard | None) -> None:
    """Copy stored rows into an array in blocks: those of ``shard``, or all rows without a shard."""
    start, stop = 0, len(rows)
    if shard is not None:
        per_class = len(rows) // max(1, shard.num_classes)
        start, stop = shard.start * per_class, shard.stop * per_class
    for first, end in rows.ranges(start, stop):
        target[first - start : end - start] = rows.read(first, end)


def _require_rows(
    where: Path,
    name: str,
    expected: tuple[int, ...],
    shape: tuple[int, ...],
    shard: Shard | None,
) -> None:
    """Raise CheckpointError unless an array with the rows of all classes fits a parameter.

    Parameters
    ----------
    where
        Path for the message.
    expected
        Shape of the parameter of this rank.
    shape
        Shape of the array.
    """
    if shard is not None:
        per_class = (
            expected[0] // shard.num_rows
            if shard.num_rows
            else shape[0] // max(1, shard.num_classes)
        )
        expected = (per_class * shard.num_classes, *expected[1:])
    if shape != expected:
        raise CheckpointError(
            f"{where}: does not fit this head, whose parameter {name!r} has shape {expected} on "
            f"all ranks together, got shape {shape}; {CURE}"
        )
