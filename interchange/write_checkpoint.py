# SPDX-License-Identifier: Apache-2.0
"""Write a stored model as a checkpoint, from which training and evaluation start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mxnet as mx
import numpy as np

from interchange.comparison import model_function, require_equal
from interchange.model import InterchangeError, StoredModel
from normalization import MEAN, STD
from training.checkpoint import HEAD, MOMENTUM, NET, CheckpointError, write_folder


def write_checkpoint(model: StoredModel, folder: str | Path) -> float | None:
    """Write a model as the checkpoint ``folder``, after a comparison with its source.

    `training.checkpoint.open_checkpoint` opens the folder.

    Returns
    -------
    The largest absolute difference of normalised embeddings from the source on 64 random images;
    None if the model has no `StoredModel.reference`.

    Raises
    ------
    InterchangeError
        If the folder exists or cannot be written, if a tensor does not fit the network, or if the
        embeddings differ from those of the source; no part of the folder remains.
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
        if not np.isfinite(array).all():
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
    arrays = {NET: _arrays(model.parameters), HEAD: _arrays(model.head), MOMENTUM: {}}
    try:
        write_folder(folder, arrays, state)
    except (OSError, CheckpointError, mx.base.MXNetError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InterchangeError(
            f"{folder}: the checkpoint cannot be written, got {reason}; free disk space, or choose "
            "another folder"
        ) from None
    return difference


def _arrays(values: Mapping[str, np.ndarray]) -> dict[str, mx.nd.NDArray]:
    return {name: mx.nd.array(array, dtype="float32") for name, array in values.items()}
