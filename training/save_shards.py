# SPDX-License-Identifier: Apache-2.0
"""Save the shards of a distributed head: every rank writes the class centres that it holds.

The shards are written into the temporary folder of the new checkpoint.  After all ranks have
succeeded, rank 0 writes the other files and the manifest, and renames the folder.  If a rank is
killed before the rename, the temporary folder remains until the next start of the run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import mxnet as mx
import numpy as np

from mxnet_arrays import RowBlocks
from training.checkpoint_files import CheckpointError
from training.model_arrays import shard_arrays, shard_of
from training.shard_files import MOMENTUM_SUFFIX, ShardHeader, write_shard
from training.shard_set import manifest_section
from training.stored_rows import block_ranges

if TYPE_CHECKING:
    from launch.ranks.comm import Comm
    from training.step import Model

T = TypeVar("T")
WRITE_ERRORS = (OSError, CheckpointError, mx.base.MXNetError)
"""Exceptions of a checkpoint that cannot be written."""


def save_shards(
    folder: Path, model: Model, comm: Comm, *, run: str, step: int
) -> dict[str, Any] | None:
    """Write the shard of this rank into a folder; all ranks call this function together.

    Parameters
    ----------
    folder
        Temporary folder of the checkpoint; rank 0 creates it, in place of an existing one.
    run, step
        Identifier of the run and step of the checkpoint, which every shard states.

    Returns
    -------
    On rank 0 the section of the manifest that describes the shards, if all ranks have succeeded.
    None on the other ranks, and on every rank that has succeeded while another rank has failed.

    Raises
    ------
    OSError, CheckpointError, mxnet.base.MXNetError
        On the ranks whose own shard cannot be written; or on rank 0, if it does not find the shard
        of another rank.  The folder is then removed.
    """
    shard = shard_of(model.head)
    assert shard is not None

    def prepare() -> list[str]:
        if comm.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        return list(shard_arrays(model))

    def write(names: list[str]) -> dict[str, Any]:
        sampler = getattr(model.head, "sampler_state", lambda: None)()
        header = ShardHeader.of(shard, run, step, sampler)
        return write_shard(folder, header, _complete(shard_arrays(model), names))

    names = _together(comm, folder, prepare)
    if names is None:
        return None
    # Horovod: a rank without images of its classes may have no momentum yet.  All shards must have
    # the same arrays, so such a rank writes zeros.
    every_name = sorted({name for of_rank in names for name in of_rank})
    entries = _together(comm, folder, lambda: write(every_name))
    if entries is None or comm.rank:
        return None
    try:
        for rank, entry in enumerate(entries):
            _require_visible(folder / entry["name"], rank, entry["bytes"])
    except WRITE_ERRORS:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return manifest_section(run, step, shard.num_classes, entries)


def _together(comm: Comm, folder: Path, work: Callable[[], T]) -> list[T] | None:
    """Call ``work`` on every rank; return the results of all ranks, or None if a rank has failed.

    If a rank has failed, rank 0 removes ``folder``, and the failed ranks raise their error.
    """
    result, failure = None, None
    try:
        result = work()
    except WRITE_ERRORS as error:
        failure = error
    found = comm.gather_json({"failed": failure is not None, "result": result})
    if any(of_rank["failed"] for of_rank in found):
        if comm.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
        if failure is not None:
            raise failure
        return None
    return [of_rank["result"] for of_rank in found]


def _complete(arrays: dict[str, RowBlocks], names: list[str]) -> dict[str, RowBlocks]:
    """Return the arrays with these names; a missing momentum becomes zeros."""
    found = {}
    for name in names:
        if name in arrays:
            found[name] = arrays[name]
            continue
        like = arrays[name.removesuffix(MOMENTUM_SUFFIX)]
        row_bytes = int(np.prod(like.shape[1:], dtype=np.int64)) * like.dtype.itemsize
        blocks = (
            np.zeros((end - first, *like.shape[1:]), like.dtype)
            for first, end in block_ranges(0, like.shape[0], row_bytes)
        )
        found[name] = RowBlocks(like.shape, like.dtype, blocks)
    return found


def _require_visible(path: Path, rank: int, size: int) -> None:
    """Raise CheckpointError unless rank 0 finds the complete shard that a rank has written."""
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        got = "no such file" if found is None else f"{found:,} bytes"
        raise CheckpointError(
            f"{path}: rank {rank} has written {size:,} bytes, which rank 0 must see, got {got}; "
            "choose a run.dir on storage that all hosts share"
        )
