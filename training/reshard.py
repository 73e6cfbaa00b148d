# SPDX-License-Identifier: Apache-2.0
"""Copy a checkpoint with its class centres in another number of shards."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heads.shard import PER_CLASS_PARAMETERS, Shard, all_shards
from mxnet_arrays import RowBlocks, write_arrays
from training import checkpoint_folders as files
from training.checkpoint import HEAD, MOMENTUM, NET, Checkpoint
from training.checkpoint_files import CheckpointError, flush
from training.shard_files import MOMENTUM_SUFFIX, PREFIX, ShardHeader, write_shard
from training.shard_set import manifest_section

if TYPE_CHECKING:
    from training.stored_rows import StoredRows

MAX_SHARDS = 99_999
"""Largest number of shards; the names of the files have five digits."""


def reshard(source: Checkpoint, out: Path, size: int) -> int:
    """Copy a checkpoint; divide its class centres and their momentum into ``size`` shards.

    The memory that the function uses does not depend on the number of classes.

    Parameters
    ----------
    source
        Checkpoint with any number of shards, or with the class centres in head.params.
    out
        Folder of the new checkpoint.  It must not exist, and appears when the copy is complete.
    size
        Number of shards, 1 to MAX_SHARDS.

    Returns
    -------
    Number of classes.

    Raises
    ------
    CheckpointError
        If the checkpoint has no class centres, if a file is damaged, or if ``out`` cannot be
        written.
    """
    if not 1 <= size <= MAX_SHARDS:
        raise CheckpointError(
            f"shards: must be from 1 to {MAX_SHARDS:,}, got {size}; give the number of ranks"
        )
    _require_new(out)
    rows = class_rows(source)
    num_classes = _count_classes(source, rows)
    if source.shards:
        source.shards.verify()
    state = {**source.state, "run": source.run_id or uuid.uuid4().hex}
    aside = files.aside_folder(out)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        _copy_files(source, aside, state)
        names = (NET, HEAD, MOMENTUM, files.STATE)
        fingerprints = {name: files.fingerprint(aside / name) for name in names}
        sampler = source.shards.sampler if source.shards else None
        entries = [
            write_shard(
                aside,
                ShardHeader.of(shard, state["run"], source.step, sampler),
                {name: _rows_of(array, shard) for name, array in rows.items()},
            )
            for shard in all_shards(num_classes, size)
        ]
        section = manifest_section(state["run"], source.step, num_classes, entries)
        files.write_manifest(aside, fingerprints, section)
        files.put_in_place(aside, out)
    except OSError as error:
        raise CheckpointError(
            f"{out}: the checkpoint cannot be written, got {error.strerror}; free disk space, or "
            "choose another folder"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return num_classes


def write_single_shard(
    folder: Path, rows: Mapping[str, StoredRows], *, run: str, step: int, num_classes: int
) -> dict[str, Any]:
    """Write the arrays of all classes as one shard; return the section of the manifest about it.

    Parameters
    ----------
    folder
        Temporary folder of the new checkpoint.
    rows
        Arrays by the names of the parameters of the head.

    Raises
    ------
    OSError, CheckpointError
        If the shard cannot be written, or if rows cannot be read.
    """
    (shard,) = all_shards(num_classes, 1)
    arrays = {f"{PREFIX}{name}": _rows_of(array, shard) for name, array in rows.items()}
    entry = write_shard(folder, ShardHeader.of(shard, run, step), arrays)
    return manifest_section(run, step, num_classes, [entry])


def class_rows(source: Checkpoint) -> dict[str, StoredRows]:
    """Return a checkpoint's arrays that have rows for each class, by their names in shards.

    Raises
    ------
    CheckpointError
        If the checkpoint has no class centres.
    """
    if source.shards:
        return dict(source.shards.arrays)
    head, momentum = source.stored(HEAD), source.stored(MOMENTUM)
    found = {}
    for name in PER_CLASS_PARAMETERS:
        if name in head:
            found[f"{PREFIX}{name}"] = head[name]
            if f"head.{name}" in momentum:
                found[f"{PREFIX}{name}{MOMENTUM_SUFFIX}"] = momentum[f"head.{name}"]
    if f"{PREFIX}{PER_CLASS_PARAMETERS[0]}" not in found:
        raise CheckpointError(
            f"{source.folder}: must contain class centres, got a head with the parameters "
            f"{sorted(head) or 'none'}; choose a checkpoint of a head with class centres"
        )
    return found


def _count_classes(source: Checkpoint, rows: Mapping[str, StoredRows]) -> int:
    """Return the number of classes; raise CheckpointError if an array does not fit this number."""
    if source.shards:
        return source.shards.num_classes
    centres = rows[f"{PREFIX}{PER_CLASS_PARAMETERS[0]}"]
    meta = source.state.get("meta", {})
    per_class = int(meta.get("head", {}).get("sub_centers", 1))
    count = int(meta.get("num_classes", len(centres) // per_class))
    for name, array in rows.items():
        if not count or len(array) % count:
            raise CheckpointError(
                f"{source.folder}: the number of rows of {name!r} must be a multiple of the "
                f"number of classes ({count}), got {len(array)}; use another checkpoint"
            )
    return count


def _rows_of(array: StoredRows, shard: Shard) -> RowBlocks:
    """Return the rows of the classes of a shard."""
    per_class = len(array) // max(1, shard.num_classes)
    start, stop = shard.start * per_class, shard.stop * per_class
    return RowBlocks((stop - start, *array.shape[1:]), array.dtype, array.blocks(start, stop))


def _copy_files(source: Checkpoint, folder: Path, state: Mapping[str, Any]) -> None:
    """Write all files of a checkpoint into a folder, except the shards and the manifest."""
    shutil.copyfile(source.folder / NET, folder / NET)
    kept = {
        HEAD: PER_CLASS_PARAMETERS,
        MOMENTUM: tuple(f"head.{name}" for name in PER_CLASS_PARAMETERS),
    }
    for file_name, moved in kept.items():
        arrays = dict(_without(source.stored(file_name), moved))
        with (folder / file_name).open("wb") as file:
            write_arrays(file, arrays)
    for file_name in (NET, *kept):
        flush(folder / file_name)
    files.write_json(folder / files.STATE, dict(state))


def _without(
    arrays: Mapping[str, StoredRows], names: tuple[str, ...]
) -> Iterator[tuple[str, RowBlocks]]:
    for name, rows in arrays.items():
        if name not in names:
            yield name, RowBlocks(rows.shape, rows.dtype, rows.blocks())


def _require_new(out: Path) -> None:
    """Raise CheckpointError if ``out`` exists, or if the folder above ``out`` does not exist."""
    if out.exists() or out.is_symlink():
        raise CheckpointError(
            f"{out}: the folder of the new checkpoint must not exist, got an existing path; "
            "choose another name"
        )
    if not out.resolve().parent.is_dir():
        raise CheckpointError(
            f"{out}: the folder above the new checkpoint must exist, got no such folder; create it"
        )
