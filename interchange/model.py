# SPDX-License-Identifier: Apache-2.0
"""A network with its weights, as every reader of a model file returns it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class InterchangeError(ValueError):
    """A model file cannot be read, does not fit a network, or cannot be written."""


@dataclass(frozen=True)
class StoredModel:
    """A network with its weights.

    The network takes (x - normalization.MEAN) / normalization.STD for RGB pixels x from 0 to 255.
    If a model file expects other values, its reader converts the weights.
    """

    source: str
    """Path of the file or folder that the model was read from."""
    kind: str
    """Format of the source: "checkpoint", "symbol", "onnx", "torch", "safetensors" or "gluonfr"."""
    net: Mapping[str, Any]
    """Arguments of `nets.build_net` without the image size, for example
    {"name": "mobilefacenet", "embedding_size": 128}."""
    image_size: tuple[int, int]
    """(height, width) of the images in pixels."""
    parameters: Mapping[str, np.ndarray]
    """float32 weights of the network, by the names of `Block._collect_params_with_prefix`."""
    head: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the head, for example {"weight": class centres (C, E)}; {} without a head.

    The values are NumPy arrays, or `training.stored_rows.StoredRows` for class centres that stay on
    the disk until their rows are read."""
    classes: Mapping[str, Any] | None = None
    """Record of the classes of the training data, as a checkpoint stores it under "classes" (see
    pipeline/records/class_record.py); None if the source states no number of classes."""
    threshold: float | None = None
    """Cosine from which two images count as the same person; None if the source states none."""
    reference: Callable[[np.ndarray], np.ndarray] | None = field(default=None, compare=False)
    """Function that computes the embeddings (B, E) of RGB pixels (B, 3, H, W) float32 with the
    source itself; `interchange.comparison` compares the network with this function.  None for all
    sources but MXNet symbols."""
    notices: tuple[str, ...] = ()
    """Sentences for the user, for example that the network is used as a graph."""
