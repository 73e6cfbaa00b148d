# SPDX-License-Identifier: Apache-2.0
"""Read networks of arcface_torch from ``.pth``, ``.pt`` and ``.safetensors`` files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from interchange.arcface_torch import IGNORED, find_net, torch_names
from interchange.layer_names import BIAS, fit_layers, fold_bias, with_own_input
from interchange.model import StoredModel
from interchange.safetensors_file import read_safetensors_file
from interchange.state_dict import strip_prefixes
from interchange.torch_file import read_torch_file

if TYPE_CHECKING:
    from interchange.input_contract import Values
    from interchange.stored_tensor import StoredTensor

TORCH_MEAN = 127.5
TORCH_STD = 127.5
"""arcface_torch's networks take (x - TORCH_MEAN) / TORCH_STD for pixels x from 0 to 255."""


def read_torch(
    path: str | os.PathLike[str],
    image_size: tuple[int, int] | None = None,
    *,
    mean: Values = TORCH_MEAN,
    std: Values = TORCH_STD,
    colour_order: str = "rgb",
) -> StoredModel:
    """Read a network of arcface_torch from a ``.pth`` or ``.pt`` file.

    No code of the file runs, and PyTorch need not be installed.

    Parameters
    ----------
    path
        Path of the file.
    image_size
        (height, width) of the images in pixels; None for the size that follows from the shapes of
        the tensors.
    mean, std
        The network takes (x - mean) / std for pixels x: one number, or one per channel.
    colour_order
        "rgb" or "bgr": channel order of the images that the network expects.

    Raises
    ------
    InterchangeError
        If the file cannot be read, or a tensor does not fit the network.
    """
    path = os.fspath(path)
    state = read_torch_file(path)
    model = _fit(path, "torch", state.tensors, image_size, notices=state.notices)
    return with_own_input(model, mean=mean, std=std, colour_order=colour_order)


def read_safetensors(
    path: str | os.PathLike[str],
    image_size: tuple[int, int] | None = None,
    *,
    mean: Values = TORCH_MEAN,
    std: Values = TORCH_STD,
    colour_order: str = "rgb",
) -> StoredModel:
    """Read a network of arcface_torch from a ``.safetensors`` file.

    Parameters and errors are those of `read_torch`.
    """
    path = os.fspath(path)
    stored, metadata = read_safetensors_file(path)
    tensors, others = strip_prefixes(stored)
    notices = [f"{path}: {len(others)} tensors outside the backbone are ignored"] if others else []
    model = _fit(
        path, "safetensors", tensors, image_size, notices=notices, threshold=_threshold(metadata)
    )
    return with_own_input(model, mean=mean, std=std, colour_order=colour_order)


def _fit(
    path: str,
    kind: str,
    tensors: Mapping[str, StoredTensor],
    image_size: tuple[int, int] | None,
    *,
    notices: Sequence[str],
    threshold: float | None = None,
) -> StoredModel:
    used = {name: each for name, each in tensors.items() if not name.endswith(IGNORED)}
    net, size = find_net(path, used, image_size)
    what = f"arcface_torch's {net['name']}"
    parameters = fit_layers(path, what, used, torch_names(path, net, size))
    if parameters.get(BIAS, np.zeros(1)).any():
        notices = [
            *notices,
            "the bias of the last linear layer is now part of the running mean of the batch "
            "normalisation after this layer",
        ]
    fold_bias(parameters)
    return StoredModel(
        path, kind, net, size, parameters, threshold=threshold, notices=tuple(notices)
    )


def _threshold(metadata: Mapping[str, str]) -> float | None:
    """Return the threshold, a cosine, that our exporter writes to the metadata; None if absent."""
    try:
        value = float(metadata["threshold"])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None
