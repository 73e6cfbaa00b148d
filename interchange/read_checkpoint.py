# SPDX-License-Identifier: Apache-2.0
"""Read a checkpoint of a training run as a stored model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import normalization
from interchange.model import StoredModel
from interchange.stored_threshold import find_threshold
from training.checkpoint import HEAD, NET, open_checkpoint, read_arrays


def read_checkpoint(path: Path) -> StoredModel:
    """Read a checkpoint folder, or the newest valid checkpoint of a run folder.

    The class centres of a distributed head stay on the disk: `StoredModel.head` contains them as
    `training.stored_rows.StoredRows`.  Each shard is verified before its first rows are read.
    """
    checkpoint = open_checkpoint(path)
    net: dict[str, Any] = read_arrays(checkpoint.folder / NET)
    head: dict[str, Any] = read_arrays(checkpoint.folder / HEAD)
    shards = checkpoint.shards
    if shards:
        head |= {name: r.checked_by(shards.verify) for name, r in shards.parameters().items()}
    model = StoredModel(
        source=str(checkpoint.folder),
        kind="checkpoint",
        net=checkpoint.meta["net"],
        image_size=checkpoint.image_size,
        parameters=net,
        head=head,
        classes=_classes(checkpoint.meta),
        threshold=find_threshold(checkpoint.folder, checkpoint.state),
        notices=tuple(f"skipped a damaged checkpoint: {text}" for text in checkpoint.damaged),
    )
    if (checkpoint.mean, checkpoint.std) == (normalization.MEAN, normalization.STD):
        return model
    return _with_own_input(model, checkpoint.mean, checkpoint.std)


def _with_own_input(model: StoredModel, mean: float, std: float) -> StoredModel:
    """Convert the weights of a model that expects (x - mean) / std for pixels x.

    The returned model expects the input of our networks, see `normalization`.
    """
    from interchange.graph_net import stored_model
    from interchange.input_contract import adapt_input
    from interchange.net_graph import model_graph

    graph = adapt_input(model_graph(model), model.source, mean=mean, std=std)
    converted, _ = stored_model(
        graph,
        source=model.source,
        kind=model.kind,
        image_size=model.image_size,
        head=model.head,
        threshold=model.threshold,
        notices=model.notices,
    )
    return replace(converted, classes=model.classes)


def _classes(meta: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record of the classes; older checkpoints state only the number of classes."""
    if "classes" in meta or "num_classes" not in meta:
        return meta.get("classes")
    return {"num_classes": meta["num_classes"], "sets": [], "runs": []}
