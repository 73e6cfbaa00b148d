# SPDX-License-Identifier: Apache-2.0
"""Write a stored model as a checkpoint, from which training and evaluation start."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from interchange.comparison import model_function, require_equal
from interchange.model import InterchangeError, StoredModel
from normalization import MEAN, STD
from training.checkpoint import HEAD, MOMENTUM, NET, CheckpointError, write_folder
from training.checkpoint_folders import aside_folder
from training.reshard import write_single_shard
from training.stored_rows import StoredRows


def write_checkpoint(model: StoredModel, folder: str | Path) -> float | None:
    """Write a model as the checkpoint ``folder``, after a comparison with its source.

    `training.checkpoint.open_checkpoint` opens the folder.

    Returns
    -------
    The largest absolute difference between the normalised embeddings of the network and of the
    source on 64 random images; None if the model has no `StoredModel.reference`.

    Raises
    ------
    InterchangeError
        If the folder exists or cannot be written, if a tensor does not fit the network, or if the
        embeddings differ from those of the source.  No incomplete folder remains.
    CheckpointError
        If a shard of the class centres is damaged.
    """
    folder = Path(folder)
    if folder.exists():
        raise InterchangeError(
            f"{folder}: the folder of the new checkpoint must not exist, got an existing path; "
            "choose another name"
        )
    if not folder.resolve().parent.is_dir():
        raise InterchangeError(
            f"{folder}: the folder above the checkpoint must exist, got no such folder; create it"
        )
    for name, array in {**model.parameters, **model.head}.items():
        blocks = array.blocks() if isinstance(array, StoredRows) else (array,)
        if not all(np.isfinite(block).all() for block in blocks):
            raise InterchangeError(
                f"{model.source}: every weight must be finite, got NaN or infinity in {name!r}; "
                "use undamaged weights"
            )
    embed = model_function(model)
    difference = None
    if model.reference is not None:
        difference = require_equal(embed, model.reference, model.image_size, model.source)
    state = {
        "meta": {
            "net": dict(model.net),
            "image_size": list(model.image_size),
            "mean": MEAN,
            "std": STD,
        },
        "source": {"path": model.source, "kind": model.kind, "notices": list(model.notices)},
        **({} if model.threshold is None else {"threshold": model.threshold}),
    }
    on_disk = {n: array for n, array in model.head.items() if isinstance(array, StoredRows)}
    in_memory = {n: array for n, array in model.head.items() if n not in on_disk}
    arrays = {NET: _arrays(model.parameters), HEAD: _arrays(in_memory), MOMENTUM: {}}
    try:
        shards = _write_shard(model, folder, on_disk) if on_disk else None
        write_folder(folder, arrays, state, shards=shards)
    except (OSError, CheckpointError, mx.base.MXNetError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InterchangeError(
            f"{folder}: the checkpoint cannot be written, got {reason}; free disk space, or choose "
            "another folder"
        ) from None
    return difference


def _write_shard(
    model: StoredModel, folder: Path, rows: Mapping[str, StoredRows]
) -> dict[str, Any]:
    """Write class centres as one shard; read them from the disk in parts."""
    aside = aside_folder(folder)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    count = int(model.classes["num_classes"]) if model.classes else len(next(iter(rows.values())))
    try:
        return write_single_shard(aside, rows, run=uuid.uuid4().hex, step=0, num_classes=count)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _arrays(values: Mapping[str, np.ndarray]) -> dict[str, mx.nd.NDArray]:
    return {name: mx.nd.array(array, dtype="float32") for name, array in values.items()}
