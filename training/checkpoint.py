# SPDX-License-Identifier: Apache-2.0
"""Save and load checkpoints; a resumed run is bitwise identical to an uninterrupted run.

A checkpoint is a folder ``step-<8 digits>/``.  It holds net.params, head.params and momentum.params
(MXNet arrays by parameter name), state.json (position, counts, net configuration) and manifest.json
(size and SHA-256 of the other files, written last).  The folder gets its final name after all files
are on disk.  No file is a pickle.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np
from mxnet import gluon

import normalization
from atomic_write import sync_folder
from mxnet_arrays import ArrayFileError, find_arrays
from training import checkpoint_folders as files
from training.checkpoint_folders import (
    CheckpointError,
    DamagedCheckpoint,
    UnreadableCheckpoint,
    remove_unfinished,
)
from training.faults import one_line

if TYPE_CHECKING:
    from training.step import Model

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "DamagedCheckpoint",
    "UnreadableCheckpoint",
    "latest_checkpoint",
    "load_parameters",
    "open_checkpoint",
    "remove_unfinished",
    "save_checkpoint",
    "write_folder",
]

FORMAT = 1
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

    @property
    def meta(self) -> dict[str, Any]:
        """Configuration of the net and its images.

        A dict with the keys "net" (arguments of ``build_net``), "image_size" ([height, width] in
        pixels), "mean" and "std".
        """
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

    def load_net_parameters(self, net: gluon.Block, ctx: mx.Context | None = None) -> None:
        """Load the saved weights into ``net``; CheckpointError if a name or shape differs."""
        load_parameters(self.folder / NET, net, ctx, "net")

    def load_head_parameters(self, head: gluon.Block, ctx: mx.Context | None = None) -> None:
        """Load the saved weights into ``head``; CheckpointError if a name or shape differs."""
        load_parameters(self.folder / HEAD, head, ctx, "head")

    def load_momentum(self, model: Model) -> None:
        """Load the saved momentum of each parameter into the trainer and the head of ``model``."""
        saved = _read_arrays(self.folder / MOMENTUM)
        indices = {id(p): i for i, p in enumerate(model.trainer._params)}
        updater = model.trainer._updaters[0]
        own = _momentum_of_head(model.head)
        for name, array in saved.items():
            if name in own:
                own[name][:] = array
                continue
            parameter = model.parameters[name]
            index = indices[id(parameter)]
            updater.states[index] = array.as_in_context(parameter.list_ctx()[0])
            updater.states_synced[index] = True


def save_checkpoint(
    parent: Path, step: int, model: Model, *, state: Mapping[str, Any], keep: int
) -> Path:
    """Write the checkpoint ``parent/step-<8 digits>``; keep only the newest ``keep`` checkpoints.

    ``state`` becomes the content of state.json.

    Raises
    ------
    CheckpointError
        If the checkpoint cannot be written, for example because the disk is full.  The earlier
        checkpoints then stay unchanged.
    """
    folder = parent / f"step-{step:08d}"
    arrays = {
        NET: _arrays(model.net),
        HEAD: _arrays(model.head),
        MOMENTUM: {**_momentum(model), **_momentum_of_head(model.head)},
    }
    try:
        parent.mkdir(parents=True, exist_ok=True)
        write_folder(folder, arrays, state)
    except (OSError, CheckpointError, mx.base.MXNetError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise CheckpointError(
            f"{folder}: the checkpoint cannot be written, got {reason}; {_last_whole(parent)}, "
            "free disk space and run the same command again"
        ) from None
    files.remove_old(parent, keep)
    return folder


def write_folder(
    folder: Path, arrays: Mapping[str, Mapping[str, mx.nd.NDArray]], state: Mapping[str, Any]
) -> None:
    """Write a checkpoint, which replaces ``folder`` when it is complete; on an error, remove it.

    ``arrays`` holds arrays by name for the file names ``NET``, ``HEAD`` and ``MOMENTUM``; ``state``
    is the content of state.json.  Errors are OSError, CheckpointError or MXNetError.
    """
    aside = folder.with_name(f"{files.ASIDE_PREFIX}{folder.name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        fingerprints = {}
        for name, content in arrays.items():
            _write_arrays(aside / name, content)
            fingerprints[name] = files.fingerprint(aside / name)
        files.write_json(aside / files.STATE, dict(state))
        fingerprints[files.STATE] = files.fingerprint(aside / files.STATE)
        files.write_json(aside / files.MANIFEST, {"format": FORMAT, "files": fingerprints})
        sync_folder(aside)
        files.put_in_place(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _last_whole(parent: Path) -> str:
    try:
        newest = files.find_newest(parent).folder
    except CheckpointError as error:
        return f"the earlier checkpoints cannot be checked ({error})"
    return f"the last valid checkpoint is {newest.name if newest else 'none'}"


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
            f"{parent}: no checkpoint is valid, got {len(found.damaged)} damaged checkpoints, of "
            f"which the newest is {found.damaged[0]}",
            cure="restore a checkpoint from a backup",
        )
    return None


def load_parameters(path: Path, block: gluon.Block, ctx: mx.Context | None, what: str) -> None:
    """Load the arrays in a file into a block; raise CheckpointError if a name or shape differs.

    ``what`` names the block in messages: "net" or "head".
    """
    saved = _read_arrays(path)
    expected = _shapes(block)
    for name in sorted({*saved, *expected}):
        if name not in saved:
            raise CheckpointError(
                f"{path}: does not fit this {what}, got no parameter {name!r}; {_CURE}"
            )
        if name not in expected:
            raise CheckpointError(
                f"{path}: does not fit this {what}, got the parameter {name!r}, which this {what} "
                f"lacks; {_CURE}"
            )
        if saved[name].shape != expected[name]:
            raise CheckpointError(
                f"{path}: does not fit this {what}, whose parameter {name!r} has shape "
                f"{expected[name]}, got shape {saved[name].shape}; {_CURE}"
            )
    for name, parameter in block._collect_params_with_prefix().items():
        parameter._load_init(saved[name], ctx or mx.cpu())


_CURE = "use the configuration with which the checkpoint was trained"


def _shapes(block: gluon.Block) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in block._collect_params_with_prefix().items()}


def _arrays(block: gluon.Block) -> dict[str, mx.nd.NDArray]:
    return {name: p.list_data()[0] for name, p in block._collect_params_with_prefix().items()}


def _momentum(model: Model) -> dict[str, mx.nd.NDArray]:
    indices = {id(p): i for i, p in enumerate(model.trainer._params)}
    states = model.trainer._updaters[0].states
    found = {n: states.get(indices[id(p)]) for n, p in model.parameters.items() if id(p) in indices}
    return {name: s for name, s in found.items() if s is not None}


def _momentum_of_head(head: gluon.Block) -> dict[str, mx.nd.NDArray]:
    """Return the momentum of a head that updates its own class centres.

    The keys of the dict are ``head.<name>``.  The dict is empty for a head that the trainer
    updates.
    """
    return {f"head.{name}": array for name, array in getattr(head, "momentum", {}).items()}


def _write_arrays(path: Path, arrays: Mapping[str, mx.nd.NDArray]) -> None:
    # Copy to the CPU first: MXNet stores the device of each array in the file, and would load an
    # array from a GPU onto the GPU again, even in a run on the CPU.
    arrays = {name: array.as_in_context(mx.cpu()) for name, array in arrays.items()}
    try:
        mx.nd.save(str(path), arrays)
    except mx.base.MXNetError as error:
        if "Write incomplete" in str(error):
            raise OSError(
                28, "No space left on device (or the limit on file sizes is reached)"
            ) from None
        raise
    files.flush(path)
    # Read the file back and compare: MXNet reports no error if the last part of a file does not fit
    # on the disk.
    try:
        back = mx.nd.load(str(path)) if arrays else {}
    except mx.base.MXNetError:
        back = None
    if back is None or any(
        not np.array_equal(back[name].asnumpy(), array.asnumpy(), equal_nan=True)
        for name, array in arrays.items()
    ):
        raise OSError(28, "No space left on device (the file is incomplete)")


def _read_arrays(path: Path) -> dict[str, mx.nd.NDArray]:
    try:
        find_arrays(path)  # mx.nd.load may end the process on a damaged file
        loaded = mx.nd.load(str(path))
    except (ArrayFileError, OSError) as error:
        raise CheckpointError(str(error)) from None
    except mx.base.MXNetError as error:
        raise CheckpointError(
            f"{path}: cannot be read as MXNet arrays, got {one_line(error)}; use another checkpoint"
        ) from None
    return loaded if isinstance(loaded, dict) else {}
