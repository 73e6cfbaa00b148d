# SPDX-License-Identifier: Apache-2.0
"""Recognise GluonFR's networks by the order, the roles and the shapes of their parameters.

The role of a parameter is the last part of its name, such as weight or gamma.

Gluon saves the parameters of a network in the order in which the network has created its blocks.
Our networks create the same blocks as GluonFR's networks, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from interchange.layer_names import BIAS, Layer, net_layers
from interchange.model import InterchangeError
from interchange.stored_tensor import StoredTensor, describe_names
from nets.image_size import HALVINGS

NAMES = {
    "gluonfr_mobilefacenet": "mobilefacenet with use_se=True",
    "seresnet18": "l_se_resnet18v2",
    "seresnet50": "l_se_resnet50v2",
    "seresnet101": "l_se_resnet101v2",
    "attention56": "attentionfacenet56",
    "attention92": "attentionfacenet92",
}
"""Mapping from our networks to the names in GluonFR."""
_USUAL_IMAGE_SIZE = (112, 112)


def find_by_order(
    path: str,
    tensors: Mapping[str, StoredTensor],
    image_size: tuple[int, int] | None,
    adapts: Callable[[Layer, tuple[int, ...]], bool],
) -> tuple[dict[str, Any], tuple[int, int], dict[str, Layer]]:
    """Find the network whose parameters have the same roles and shapes as the tensors of a file.

    Parameters
    ----------
    path
        Path of the file, for messages.
    tensors
        Tensors in the order of the file, without the classification layer.
    image_size
        (height, width) of the images in pixels.  None stands for the size that follows from the
        shapes, or for 112x112 pixels if the shapes do not determine the size.
    adapts
        Function that decides whether a tensor whose shape differs from that of a layer still fits
        the layer; the arguments are the layer and the shape of the tensor.

    Returns
    -------
    Arguments of `nets.build_net`, the image size, and the layers, keyed by the names of the
    tensors.

    Raises
    ------
    InterchangeError
        If the tensors belong to none of the networks in ``NAMES``.
    """
    weights = [each.shape for each in tensors.values() if len(each.shape) > 1]
    if len(weights) > 1 and min(weights[-1]) > 0:
        for name in NAMES:
            size = image_size or _image_size(name, weights[-2])
            net = {"name": name, "embedding_size": weights[-1][0]}
            layers = [each for each in net_layers(path, net, size) if each.name != BIAS]
            if _fits(layers, tensors, adapts):
                return net, size, dict(zip(tensors, layers, strict=True))
    raise InterchangeError(
        f"{path}: must be GluonFR's mobilefacenet or one of {', '.join(NAMES.values())}, got "
        f"{len(tensors)} tensors, {describe_names([*tensors])}; save the network with Gluon's "
        "export() and import the symbol files"
    )


def _image_size(name: str, pool: tuple[int, ...]) -> tuple[int, int]:
    if name == "gluonfr_mobilefacenet" and len(pool) == 4 and 0 not in pool:
        return pool[2] << HALVINGS, pool[3] << HALVINGS
    return _USUAL_IMAGE_SIZE


def _fits(
    layers: list[Layer],
    tensors: Mapping[str, StoredTensor],
    adapts: Callable[[Layer, tuple[int, ...]], bool],
) -> bool:
    return len(layers) == len(tensors) and all(
        name.endswith(layer.name.rpartition(".")[2])
        and (each.shape == layer.shape or adapts(layer, each.shape))
        for layer, (name, each) in zip(layers, tensors.items(), strict=True)
    )
