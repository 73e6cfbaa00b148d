# SPDX-License-Identifier: Apache-2.0
"""Read GluonFR's networks from a ``.params`` file.

The source is gluonfr/model_zoo of GluonFR 1.0.2 (PyPI), which trains on pixels
divided by 255: scripts/train_script.py of https://github.com/THUFutureLab/gluon-face transforms
images with ``ToTensor`` alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from interchange.gluonfr_order import NAMES, find_by_order
from interchange.layer_names import BIAS, Layer, fit_layers, net_layers, with_own_input
from interchange.model import InterchangeError, StoredModel
from interchange.stored_tensor import StoredTensor, describe_names, read_float32
from mxnet_arrays import ArrayFileError, read_arrays
from nets.image_size import HALVINGS

if TYPE_CHECKING:
    from interchange.input_contract import Values

GLUONFR_MEAN = 0.0
GLUONFR_STD = 255.0
"""GluonFR's networks take (x - GLUONFR_MEAN) / GLUONFR_STD for pixels x from 0 to 255."""
CLASSIFIER = "output.weight"
"""Name of the weight of the classification layer: class centres (C, E)."""
_WHAT = "GluonFR's MobileFaceNet"
_CURE = (
    "use a file of GluonFR's get_mobile_facenet(), or save the network with Gluon's export() and "
    "import the symbol files"
)
_PARTS = ("conv", "norm", "act")
_BOTTLENECK = ("expand", "depthwise", "project")
_HINTS = {"conv": "conv", "norm": "batchnorm", "act": "prelu"}
_STAGE = re.compile(r"stages\.(\d+)\.(\d+)\.(\w+)")
# Modules outside the stages, in the order in which GluonFR creates them: (our module, its index in
# the sequence `features`).
_TRUNK = (("stem", 0), ("stem_depthwise", 1), ("last", 7), ("embedding.pool", 8))
_LINEAR, _NORM = ("embedding.linear", 9), ("embedding.norm", 10)
_MOBILEFACENET = re.compile(r"features\.\d+\.\d+\.out\.|feature_stage\d+_bottleneck\d+_")
_OWN_PREFIX = re.compile(r"(?:arg:|aux:)?(.*?)(?=feature_|output_)")


def read_gluonfr(
    path: str | os.PathLike[str],
    image_size: tuple[int, int] | None = None,
    *,
    mean: Values = GLUONFR_MEAN,
    std: Values = GLUONFR_STD,
    colour_order: str = "rgb",
) -> StoredModel:
    """Read one of GluonFR's networks, with or without its classification layer.

    The weight of the classification layer becomes the class centres of the head.

    Parameters
    ----------
    path
        File that ``net.save_parameters`` or ``net.collect_params().save`` wrote.
    image_size
        (height, width) of the images in pixels; None for the size that follows from the shapes of
        the tensors, or for 112x112 if the shapes do not determine the size.
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
    tensors = _read_tensors(path)
    classifier = _pop_classifier(tensors)
    if any(_MOBILEFACENET.search(name) for name in tensors) and not _has_squeezes(tensors):
        net, size, layers = _find_mobilefacenet(path, tensors, image_size)
        what = _WHAT
    else:
        net, size, layers = find_by_order(path, tensors, image_size, _adapts)
        what = f"GluonFR's {NAMES[net['name']]}"
    parameters = fit_layers(path, what, tensors, layers, _adapts)
    # GluonFR creates these batch normalisations with scale=False, so MXNet ignores the stored gamma
    # and computes with 1.
    for name in ("embedding.norm.gamma", "input_norm.gamma"):
        if name in parameters:
            parameters[name] = np.ones_like(parameters[name])
    head, notices = _read_head(path, classifier, net["embedding_size"])
    model = StoredModel(path, "gluonfr", net, size, parameters, head, notices=notices)
    return with_own_input(model, mean=mean, std=std, colour_order=colour_order)


def _find_mobilefacenet(
    path: str, tensors: Mapping[str, StoredTensor], image_size: tuple[int, int] | None
) -> tuple[dict[str, Any], tuple[int, int], dict[str, Layer]]:
    """Return the arguments and the image size of a MobileFaceNet, and the layer of each tensor."""
    rename = _structure_name if any(n.startswith("features.") for n in tensors) else _prefix_name
    names = {key: rename(key) for key in ("embedding.linear.weight", "embedding.pool.conv.weight")}
    weight, pool = (_require(path, tensors, name) for name in names.values())
    net = {"name": "mobilefacenet", "embedding_size": weight[0]}
    size = image_size or (pool[2] << HALVINGS, pool[3] << HALVINGS)
    layers = {rename(each.name): each for each in net_layers(path, net, size) if each.name != BIAS}
    return net, size, layers


def _pop_classifier(tensors: dict[str, StoredTensor]) -> StoredTensor | None:
    """Remove and return the weight of the classification layer; return None if there is none."""
    names = [name for name in tensors if re.fullmatch(r"(?:.*_)?output[._]weight", name)]
    return tensors.pop(names[0]) if names else None


def _has_squeezes(tensors: Mapping[str, StoredTensor]) -> bool:
    """Return whether the tensors include weights of squeeze-and-excitation layers."""
    return any(re.search(r"\.out\.3\.fc\.|selayer\d+_", name) for name in tensors)


def _read_tensors(path: str) -> dict[str, StoredTensor]:
    """Read the arrays of a file; remove the name of the network from the names of the arrays."""
    try:
        arrays = read_arrays(path)
    except OSError as error:
        raise InterchangeError(
            f"{path}: cannot be read, got {error.strerror!r}; name a .params file"
        ) from None
    except ArrayFileError as error:
        raise InterchangeError(str(error)) from None
    if not any(name.startswith("features.") for name in arrays):
        prefixes = {match[0] for name in arrays if (match := _OWN_PREFIX.match(name))}
        renamed = {_without_prefix(name): name for name in arrays}
        if len(renamed) != len(arrays):
            raise InterchangeError(
                f"{path}: must contain one network, got the prefixes "
                f"{describe_names(sorted(prefixes))}; {_CURE}"
            )
        arrays = {name: arrays[old] for name, old in renamed.items()}
    return {
        name: StoredTensor(array.shape, str(array.dtype), partial(np.asarray, array))
        for name, array in arrays.items()
    }


def _without_prefix(name: str) -> str:
    match = _OWN_PREFIX.match(name)
    return name[match.end() :] if match else name


def _structure_name(name: str) -> str:
    """Convert our name of a parameter to its name in files of ``save_parameters``."""
    module, _, role = name.rpartition(".")
    for own, index in (_LINEAR, _NORM):
        if module == own:
            return f"features.{index}.{role}"
    block, _, part = module.rpartition(".")
    if match := _STAGE.fullmatch(block):
        sequence, unit = _place(int(match[1]), int(match[2]))
        inner = f"out.{_BOTTLENECK.index(match[3])}.{_PARTS.index(part)}"
        return f"features.{1 + sequence}.{unit}.{inner}.{role}"
    return f"features.{dict(_TRUNK)[block]}.{_PARTS.index(part)}.{role}"


def _prefix_name(name: str) -> str:
    """Convert our name of a parameter to that of ``collect_params().save``, without prefix."""
    module, _, role = name.rpartition(".")
    order = [own for own, _ in _TRUNK]
    for own, hint in ((_LINEAR[0], "conv"), (_NORM[0], "batchnorm")):
        if module == own:
            return f"feature_{hint}{len(order)}_{role}"
    block, _, part = module.rpartition(".")
    if match := _STAGE.fullmatch(block):
        sequence, unit = _place(int(match[1]), int(match[2]))
        number = _BOTTLENECK.index(match[3])
        return f"feature_stage{sequence}_bottleneck{unit}_{_HINTS[part]}{number}_{role}"
    return f"feature_{_HINTS[part]}{order.index(block)}_{role}"


def _place(stage: int, unit: int) -> tuple[int, int]:
    """Return the place of a bottleneck in GluonFR: the number of its sequence, and its index in it.

    The number of the sequence counts from 1, the index in the sequence from 0.
    In GluonFR the first stage is one sequence.  Each later stage has two: one sequence for the
    first bottleneck, and one for the other bottlenecks.
    """
    if stage == 0:
        return 1, unit
    return (2 * stage, 0) if unit == 0 else (2 * stage + 1, unit - 1)


def _adapts(layer: Layer, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor of another shape than ``layer`` still fits the layer.

    GluonFR has one slope for all channels of a PReLU, and a 1x1 convolution as the last linear
    layer.
    """
    if layer.name.endswith(".alpha"):
        return shape == (1,)
    return layer.name == "embedding.linear.weight" and shape == (*layer.shape, 1, 1)


def _require(path: str, tensors: Mapping[str, StoredTensor], name: str) -> tuple[int, ...]:
    """Return the shape of a convolution's weight.

    Raise InterchangeError if the weight is missing, does not have 4 axes, or is empty.
    """
    shape = tensors[name].shape if name in tensors else None
    if shape is None or len(shape) != 4 or 0 in shape:
        found = f"the shape {shape}" if shape is not None else describe_names([*tensors])
        raise InterchangeError(
            f"{path}: must be {_WHAT} with a tensor {name!r} of 4 axes, got {found}; {_CURE}"
        )
    return shape


def _read_head(
    path: str, classifier: StoredTensor | None, embedding_size: int
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    if classifier is None:
        return {}, ()
    if len(classifier.shape) != 2 or classifier.shape[1] != embedding_size:
        raise InterchangeError(
            f"{path}: the weight of the classification layer must have the shape (classes, "
            f"{embedding_size}), got {classifier.shape}; use an undamaged file of GluonFR"
        )
    centres = read_float32(path, CLASSIFIER, classifier)
    notice = f"the weight of the classification layer is used as {centres.shape[0]} class centres"
    return {"weight": centres}, (notice,)
