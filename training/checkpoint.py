# SPDX-License-Identifier: Apache-2.0
"""Save and load checkpoints; a resumed run is bitwise identical to an uninterrupted run.

A checkpoint is a folder ``step-<8 digits>/``.  It holds net.params, head.params and momentum.params
(MXNet arrays by parameter name), state.json (position, counts, net configuration) and manifest.json
(size and SHA-256 of the other files, written last).  The folder gets its final name after all files
are on disk.  No file is a pickle.

A distributed head (head.sharded=true) has a part of the class centres on each rank.  Its class
centres and their momentum are in ``fc7-<rank>-of-<ranks>.params``, one file per rank
(training/shard_files.py).  When a run resumes, every rank reads the rows of its own classes from
these files, so the number of ranks may change.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import normalization
from mxnet_arrays import ArrayFileError, find_arrays
from training import checkpoint_folders as files
from training.checkpoint_arrays import read_arrays, write_arrays
from training.checkpoint_folders import (
    CheckpointError,
    DamagedCheckpoint,
    UnreadableCheckpoint,
    remove_unfinished,
)
from training.checkpoint_state import find_fault
from training.faults import one_line
from training.model_arrays import (
    block_arrays,
    load_momentum,
    load_parameters,
    momentum_arrays,
    shard_of,
)
from training.save_shards import WRITE_ERRORS, save_shards
from training.shard_set import find_shards
from training.stored_rows import StoredRows

if TYPE_CHECKING:
    import mxnet as mx
    from mxnet import gluon

    from launch.ranks.comm import Comm
    from training.shard_set import ShardSet
    from training.step import Model

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "DamagedCheckpoint",
    "UnreadableCheckpoint",
    "latest_checkpoint",
    "open_checkpoint",
    "read_arrays",
    "remove_unfinished",
    "save_checkpoint",
    "write_folder",
]

NET, HEAD, MOMENTUM = "net.params", "head.params", "momentum.params"
"""Names of the files of a checkpoint that hold arrays."""


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoint on disk whose files match its manifest.

    ``state`` is the content of state.json, as passed to ``save_checkpoint``.  ``damaged`` holds one
    message for each newer checkpoint that was skipped because it is damaged.
    """

    folder: Path
    state: dict[str, Any]
    damaged: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise CheckpointError if a value of the state has a wrong type or is out of range."""
        if fault := find_fault(self.state):
            raise CheckpointError(f"{self.folder / files.STATE}: {fault}; use another checkpoint")

    @property
    def meta(self) -> dict[str, Any]:
        """Configuration of the net and its images.

        A dict with the keys "net" (arguments of ``build_net``), "image_size" ([height, width] in
        pixels), "mean" and "std".
        """
        if "meta" not in self.state:
            raise CheckpointError(
                f"{self.folder / files.STATE}: must describe the network under 'meta', got only "
                f"{str(list(self.state))[:80]}; use another checkpoint"
            )
        return self.state["meta"]

    @property
    def mean(self) -> float:
        """Mean that training subtracted from pixels; normalization.MEAN if none was saved."""
        return self.meta.get("mean", normalization.MEAN)

    @property
    def std(self) -> float:
        """Number by which training divided pixels; normalization.STD if none was saved."""
        return self.meta.get("std", normalization.STD)

    @property
    def image_size(self) -> tuple[int, int]:
        """Size of the training images in pixels, as (height, width)."""
        height, width = self.meta["image_size"]
        return height, width

    @property
    def step(self) -> int:
        """Step of the checkpoint, 0 for an imported model."""
        return int(self.state.get("progress", {}).get("step", 0))

    @property
    def run_id(self) -> str | None:
        """Identifier of the run, None in checkpoints of older versions."""
        return self.state.get("run")

    @cached_property
    def shards(self) -> ShardSet | None:
        """Shards of the class centres; None if head.params contains the class centres."""
        return find_shards(self.folder)

    def stored(self, name: str) -> dict[str, StoredRows]:
        """Return the arrays of the file ``name`` by their names; no array is read yet.

        Raises
        ------
        CheckpointError
            If the file cannot be read.
        """
        path = self.folder / name
        try:
            return {key: StoredRows([(path, place)]) for key, place in find_arrays(path).items()}
        except OSError as error:
            raise files.file_error(path, error) from None
        except ArrayFileError as error:
            raise CheckpointError(f"{error}, or use another checkpoint") from None

    def stored_head(self) -> dict[str, StoredRows]:
        """Return the head's parameters by name, with the rows of all shards; no row is read yet."""
        shards = self.shards.parameters() if self.shards else {}
        return {**self.stored(HEAD), **shards}

    def load_net_parameters(self, net: gluon.Block, ctx: mx.Context | None = None) -> None:
        """Load the saved weights into ``net``; raise CheckpointError if a name or shape differs."""
        load_parameters(self.stored(NET), self.folder / NET, net, ctx, what="net")

    def load_head_parameters(self, head: gluon.Block, ctx: mx.Context | None = None) -> None:
        """Load the saved weights into ``head``; raise CheckpointError if a name or shape differs.

        If the head is distributed over the ranks, this method loads only the rows of the classes of
        this rank.  It also restores the generator that samples classes.
        """
        load_parameters(self.stored_head(), self.folder / HEAD, head, ctx, what="head")
        sampler = self.shards.sampler if self.shards else None
        if sampler is not None and shard_of(head) is not None:
            head.load_sampler_state(sampler)

    def load_momentum(self, model: Model) -> None:
        """Load the saved momentum of each parameter into the trainers and the head of ``model``.

        Raises
        ------
        CheckpointError
            If a name or shape differs.
        """
        momentum = self.shards.momentum() if self.shards else {}
        saved = {**self.stored(MOMENTUM), **momentum}
        load_momentum(model, saved, self.folder / MOMENTUM)


def save_checkpoint(
    parent: Path,
    step: int,
    model: Model,
    *,
    state: Mapping[str, Any],
    keep: int,
    comm: Comm | None = None,
) -> Path:
    """Write the checkpoint ``parent/step-<8 digits>``; keep only the newest ``keep`` checkpoints.

    If the head is distributed over the ranks, all ranks call this function together; else only rank
    0 calls it.

    Parameters
    ----------
    state
        Content of state.json.  With a distributed head, ``state["run"]`` identifies the run.
    comm
        Communication between ranks; None for a head that is not distributed.

    Raises
    ------
    CheckpointError
        If this rank cannot write its part of the checkpoint, for example because the disk is full.
        The earlier checkpoints then stay unchanged.  No other rank raises the error.
    """
    folder = files.step_folder(parent, step)
    shards = None
    try:
        if shard_of(model.head) is not None:
            assert comm is not None
            aside = files.aside_folder(folder)
            shards = save_shards(aside, model, comm, run=str(state["run"]), step=step)
            if shards is None:
                return folder
        parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            NET: block_arrays(model.net),
            HEAD: block_arrays(model.head),
            MOMENTUM: momentum_arrays(model),
        }
        write_folder(folder, arrays, state, shards=shards)
    except WRITE_ERRORS as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise CheckpointError(
            f"{folder}: the checkpoint cannot be written, got {reason}; {_last_whole(parent)}, "
            "free disk space and run the same command again"
        ) from None
    files.remove_old(parent, keep)
    return folder


def write_folder(
    folder: Path,
    arrays: Mapping[str, Mapping[str, mx.nd.NDArray]],
    state: Mapping[str, Any],
    *,
    shards: Mapping[str, Any] | None = None,
) -> None:
    """Write a new checkpoint, then replace ``folder`` by it; an error removes the new checkpoint.

    Parameters
    ----------
    arrays
        Arrays by name for the file names ``NET``, ``HEAD`` and ``MOMENTUM``.
    state
        Content of state.json.
    shards
        Section of the manifest about the shards; None for a checkpoint without shards.  The shards
        are already in the temporary folder, `training.checkpoint_folders.aside_folder`.

    Raises
    ------
    OSError, CheckpointError, mxnet.base.MXNetError
        If a file cannot be written.
    """
    aside = files.aside_folder(folder)
    try:
        if shards is None:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
        fingerprints = {}
        for name, content in arrays.items():
            write_arrays(aside / name, content)
            fingerprints[name] = files.fingerprint(aside / name)
        files.write_json(aside / files.STATE, dict(state))
        fingerprints[files.STATE] = files.fingerprint(aside / files.STATE)
        files.write_manifest(aside, fingerprints, shards)
        files.put_in_place(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _last_whole(parent: Path) -> str:
    try:
        newest = files.find_newest(parent).folder
    except CheckpointError as error:
        return f"the earlier checkpoints cannot be checked ({error})"
    return f"the last valid checkpoint is {newest.name}" if newest else "no checkpoint is valid"


def open_checkpoint(folder: Path) -> Checkpoint:
    """Verify a checkpoint folder against its manifest and return the checkpoint.

    If ``folder`` is a run folder or its folder ``checkpoints``, open the newest valid checkpoint.

    Raises
    ------
    CheckpointError
        If no checkpoint is found, or if a file of the checkpoint is missing, changed or unreadable.
    """
    folder = Path(folder)
    if re.fullmatch(r"step-\d{8,}", folder.name) and folder.is_dir():
        return Checkpoint(folder, files.verify(folder))
    for parent in (folder / "checkpoints", folder):
        newest = latest_checkpoint(parent)
        if newest:
            return newest
    if (folder / files.MANIFEST).is_file():  # a checkpoint folder that the user has renamed
        return Checkpoint(folder, files.verify(folder))
    raise CheckpointError(
        f"{folder}: no checkpoint found, got a folder without {files.MANIFEST} and without "
        f"step-*/{files.MANIFEST}; pass a run folder, or a folder checkpoints/step-* of a run"
    )


def latest_checkpoint(parent: Path) -> Checkpoint | None:
    """Return the newest valid checkpoint in ``parent``, or None if ``parent`` has no checkpoint.

    Raises
    ------
    DamagedCheckpoint
        If ``parent`` has checkpoints and all of them are damaged.
    UnreadableCheckpoint
        If reading a checkpoint fails; the checkpoint may be valid.
    """
    found = files.find_newest(parent)
    if found.folder:
        return Checkpoint(found.folder, found.state, found.damaged)
    if found.damaged:
        raise DamagedCheckpoint(
            f"{parent}: no checkpoint is valid, got {len(found.damaged)} damaged checkpoints "
            f"(fault of the newest: {found.damaged[0]})",
            cure="restore a checkpoint from a backup",
        )
    return None
