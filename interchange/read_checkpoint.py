# SPDX-License-Identifier: Apache-2.0
"""Read a checkpoint of a training run as a stored model."""

from __future__ import annotations

from pathlib import Path

from interchange.model import StoredModel
from interchange.stored_threshold import find_threshold
from training.checkpoint import _read_arrays, open_checkpoint


def read_checkpoint(path: Path) -> StoredModel:
    """Read a checkpoint folder, or the newest valid checkpoint of a run folder."""
    checkpoint = open_checkpoint(path)
    arrays = {
        name: {
            key: array.asnumpy() for key, array in _read_arrays(checkpoint.folder / name).items()
        }
        for name in ("net.params", "head.params")
    }
    return StoredModel(
        source=str(checkpoint.folder),
        kind="checkpoint",
        net=checkpoint.meta["net"],
        image_size=checkpoint.image_size,
        parameters=arrays["net.params"],
        head=arrays["head.params"],
        threshold=find_threshold(checkpoint.folder, checkpoint.state),
        notices=tuple(f"skipped a damaged checkpoint: {text}" for text in checkpoint.damaged),
    )
