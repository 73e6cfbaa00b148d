# SPDX-License-Identifier: Apache-2.0
"""Write a network as a ``.safetensors`` file with the layer names of arcface_torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

import normalization
from atomic_write import atomic_write
from interchange.arcface_torch import IGNORED, MOBILEFACENETS, torch_name, torch_names
from interchange.layer_names import BIAS
from interchange.model import InterchangeError, StoredModel
from interchange.read_torch import TORCH_STD, read_safetensors
from nets import ALIASES, NETS
from ranges import settings

FIRST_CONVOLUTION = "stem.conv.weight"
TORCH_IMAGE_SIZE = (112, 112)
"""(height, width) in pixels of the images for which arcface_torch builds its networks."""
RELATIVE_TOLERANCE = 1e-6


def write_safetensors(
    model: StoredModel, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Write a network so that arcface_torch's ``load_state_dict`` with strict=True accepts it.

    The file is read back and compared before it appears under its name.

    Parameters
    ----------
    model
        Network: an iresnet, mobilefacenet, mbf or mbf_large.  Its settings must be the defaults,
        except for the embedding size, the dropout, the output "FC" of an iresnet, and the scale of
        the others.
    path
        File to write; its folder must exist.
    metadata
        Further texts to store in the file.  The file always states the network, the sizes, the
        colour order and the value range.

    Returns
    -------
    Sentences for the user: a notice if arcface_torch expects another image size, else ().

    Raises
    ------
    InterchangeError
        If arcface_torch has no such network, if the file cannot be written, or if the file gives
        another network when it is read back.
    """
    path = os.fspath(path)
    tensors = _torch_tensors(model, path)
    content = safetensors.numpy.save(tensors, {**(metadata or {}), **torch_contract(model)})
    try:
        with atomic_write(path) as file:
            file.write(content)
            file.flush()
            _compare(model, path, read_safetensors(file.name, model.image_size))
    except OSError as error:
        raise InterchangeError(
            f"{path}: cannot be written, got {error.strerror or error}; name a file in a folder "
            "that exists, on a disk with free space"
        ) from None
    if model.image_size == TORCH_IMAGE_SIZE:
        return ()
    return (
        "the network takes images of {}x{} pixels, but arcface_torch builds its networks for "
        "112x112 pixels; change the size of arcface_torch's last layer before loading".format(
            *model.image_size
        ),
    )


def _known_net(model: StoredModel, path: str) -> dict[str, Any]:
    """Return the arguments of the network, with its full name in place of an alias.

    The arguments always contain the embedding size.

    Raises
    ------
    InterchangeError
        If arcface_torch lacks the network.
    """
    name = ALIASES.get(model.net["name"], model.net["name"])
    known = (
        {key: each.default for key, each in settings(NETS[name]).items()} if name in NETS else {}
    )
    net = {"embedding_size": known.get("embedding_size"), **model.net, "name": name}
    free = {"name", "embedding_size", "dropout", *(("scale",) if name in MOBILEFACENETS else ())}
    changed = [key for key, value in net.items() if key not in free and value != known.get(key)]
    if changed == ["output"] and net["output"] == "FC" and name.startswith("iresnet"):
        changed = []  # FC is the output E without dropout
    if not (name.startswith("iresnet") or name in MOBILEFACENETS) or changed:
        found = repr(name) + "".join(f", {key} {net[key]!r}" for key in changed)
        raise InterchangeError(
            f"{path}: arcface_torch has the networks iresnet, mobilefacenet, mbf and mbf_large "
            f"with their default settings, got {found}; export the model as onnx or symbol"
        )
    return net


def _torch_tensors(model: StoredModel, path: str) -> dict[str, np.ndarray]:
    net = _known_net(model, path)
    name = net["name"]
    tensors = {}
    for theirs, layer in torch_names(path, net, model.image_size).items():
        if layer.name == BIAS:
            continue
        values = np.ascontiguousarray(model.parameters[layer.name], np.float32)
        if layer.name == FIRST_CONVOLUTION:
            # (x - 127.5) / 128 = (x - 127.5) / 127.5 * (127.5 / 128)
            values = (values * (TORCH_STD / normalization.STD)).astype(np.float32)
        tensors[theirs] = values
        if layer.name.endswith("running_var"):
            counter = theirs.removesuffix(".running_var") + IGNORED
            tensors[counter] = np.zeros((), np.int64)
    if name.startswith("iresnet"):  # arcface_torch's linear layer has a bias, ours has none
        linear = torch_name(name, "embedding.linear.weight")
        size = tensors[linear].shape[0]
        tensors[torch_name(name, BIAS)] = np.zeros(size, np.float32)
    return tensors


def torch_contract(model: StoredModel) -> dict[str, str]:
    """Return the texts that describe an exported network, its input and its output."""
    stated = {
        "net": str(model.net["name"]),
        "image_size": "{}x{}".format(*model.image_size),
        "colour_order": "RGB",
        "layout": "NCHW",
        "value_range": "(pixel - 127.5) / 127.5",
        "output": "embedding, not normalised",
    }
    return stated if model.threshold is None else {**stated, "threshold": repr(model.threshold)}


def _compare(model: StoredModel, path: str, back: StoredModel) -> None:
    """Raise InterchangeError if a parameter read back from the file differs from the model's."""
    for name, values in model.parameters.items():
        if not np.allclose(back.parameters[name], values, rtol=RELATIVE_TOLERANCE, atol=1e-30):
            raise InterchangeError(
                f"{path}: does not read back as the same network, got other values of {name!r}; "
                "check the disk"
            )
