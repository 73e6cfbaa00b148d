# SPDX-License-Identifier: Apache-2.0
"""Names that InsightFace's arcface_torch gives to the tensors of our networks.

The source is recognition/arcface_torch/backbones/iresnet.py and mobilefacenet.py of InsightFace
(https://github.com/deepinsight/insightface).  The depth, the embedding size and the image size of a
network follow from the names and the shapes of its tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from interchange.layer_names import Layer, net_layers
from interchange.model import InterchangeError
from interchange.stored_tensor import StoredTensor, describe_names
from nets import NETS
from nets.image_size import HALVINGS
from nets.iresnet import STAGE_CHANNELS, UNITS
from nets.mobilefacenet import BLOCKS, STEM_CHANNELS
from ranges import settings

IGNORED = ".num_batches_tracked"
"""Suffix of the names of the tensors that count the training steps of PyTorch's BatchNorm layers.

The counters do not change the embeddings, so readers of a file skip them."""
_ROLES = {"gamma": "weight", "beta": "bias", "alpha": "weight"}
_STAGE = re.compile(r"stages\.(\d+)\.(\d+)\.(.+)")
_UNIT = {
    "norm": "bn1", "first.conv": "conv1", "first.norm": "bn2", "first.act": "prelu",
    "second.conv": "conv2", "second.norm": "bn3",
    "shortcut.conv": "downsample.0", "shortcut.norm": "downsample.1",
}  # fmt: skip
_IRESNET = {
    "stem.conv": "conv1", "stem.norm": "bn1", "stem.act": "prelu",
    "embedding.feature_norm": "bn2", "embedding.linear": "fc", "embedding.norm": "features",
}  # fmt: skip
_CONV = {"conv": 0, "norm": 1, "act": 2}
_BOTTLENECK = {"expand": 0, "depthwise": 1, "project": 2}
_MOBILEFACENET = {
    "stem": "layers.0", "stem_depthwise": "layers.1", "last": "conv_sep",
    "embedding.pool": "features.layers.0",
}  # fmt: skip
_GDC = {"embedding.linear": "features.layers.2", "embedding.norm": "features.layers.3"}
_CURE = (
    "use a file of arcface_torch's iresnet18, 34, 50, 100 or 200, get_mbf or get_mbf_large, or "
    "export the model to ONNX and import the ONNX file"
)
_STEM_BLOCK = re.compile(r"stem_depthwise\.(\d+)\.(\w+)")
MOBILEFACENETS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "mobilefacenet": ("mbf", BLOCKS),
    "mbf": ("mbf", BLOCKS),
    "mbf_large": ("mbf_large", (2, 8, 12, 4)),
}
"""Mapping from each of our MobileFaceNets that arcface_torch has too, to a pair.

The pair is arcface_torch's name of the network, and the setting ``blocks`` of our network, see
`nets.mobilefacenet.MobileFaceNet`.  arcface_torch's mbf with scale 1 is our mobilefacenet."""


def torch_name(net_name: str, name: str) -> str:
    """Return arcface_torch's name of a parameter.

    Parameters
    ----------
    net_name
        Name of our network: a key of ``MOBILEFACENETS``, or an iresnet, for example "iresnet50".
    name
        Name of the parameter in our network, for example "stages.0.1.first.conv.weight".
    """
    module, _, role = name.rpartition(".")
    translate = _mobilefacenet_module if net_name in MOBILEFACENETS else _iresnet_module
    return f"{translate(module)}.{_ROLES.get(role, role)}"


def _iresnet_module(module: str) -> str:
    if match := _STAGE.fullmatch(module):
        stage, unit, part = match.groups()
        return f"layer{int(stage) + 1}.{unit}.{_UNIT[part]}"
    return _IRESNET[module]


def _mobilefacenet_module(module: str) -> str:
    if module in _GDC:
        return _GDC[module]
    block, _, part = module.rpartition(".")
    layer = f"layers.{_CONV[part]}"
    if match := _STAGE.fullmatch(block):
        # In arcface_torch, each stage is two modules: the first bottleneck of the stage, and a
        # module with the other bottlenecks.
        stage, index = int(match[1]), int(match[2])
        first = f"layers.{2 + 2 * stage}"
        start = first if index == 0 else f"layers.{3 + 2 * stage}.layers.{index - 1}"
        return f"{start}.layers.{_BOTTLENECK[match[3]]}.{layer}"
    if match := _STEM_BLOCK.fullmatch(block):
        return f"layers.1.layers.{match[1]}.layers.{_BOTTLENECK[match[2]]}.{layer}"
    return f"{_MOBILEFACENET[block]}.{layer}"


def torch_names(path: str, net: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Layer]:
    """Return the parameters of one of our networks, keyed by arcface_torch's names."""
    return {torch_name(net["name"], each.name): each for each in net_layers(path, net, image_size)}


def find_net(
    path: str, tensors: Mapping[str, StoredTensor], image_size: tuple[int, int] | None
) -> tuple[dict[str, Any], tuple[int, int]]:
    """Find which of our networks fits the tensors of a file.

    Parameters
    ----------
    path
        Path of the file, for messages.
    tensors
        Tensors of the file by name.
    image_size
        (height, width) of the images in pixels; None derives the size from the shapes.

    Returns
    -------
    Arguments of `nets.build_net`, and the image size.

    Raises
    ------
    InterchangeError
        If the names or the shapes of the tensors fit none of our networks.
    """
    if "conv1.weight" in tensors and any(name.startswith("layer1.") for name in tensors):
        return _find_iresnet(path, tensors, image_size)
    if any(name.startswith("layers.0.layers.") for name in tensors):
        return _find_mobilefacenet(path, tensors, image_size)
    raise InterchangeError(
        f"{path}: must have the tensors of a network of arcface_torch, such as "
        "'layer1.0.bn1.weight' or 'layers.0.layers.0.weight', got "
        f"{describe_names([*tensors])}; {_CURE}"
    )


def _find_iresnet(
    path: str, tensors: Mapping[str, StoredTensor], image_size: tuple[int, int] | None
) -> tuple[dict[str, Any], tuple[int, int]]:
    pattern = re.compile(r"layer([1-4])\.(\d{1,4})\.")
    units = {match.groups() for name in tensors if (match := pattern.match(name))}
    counts = tuple(sum(stage == str(i) for stage, _ in units) for i in range(1, 5))
    depth = next((depth for depth, known in UNITS.items() if known == counts), None)
    if depth is None:
        raise InterchangeError(
            f"{path}: must be an iresnet with {', '.join(map(str, UNITS))} layers, got "
            f"{counts} units in the four stages; {_CURE}"
        )
    weight = _require(path, tensors, torch_name("iresnet", "embedding.linear.weight"), axes=2)
    positions, remainder = divmod(weight[1], STAGE_CHANNELS[-1])
    side = math.isqrt(positions)
    if image_size is None and (remainder or side * side != positions or not side):
        raise InterchangeError(
            f"{path}: the tensor 'fc.weight' must fit a square feature map of "
            f"{STAGE_CHANNELS[-1]} channels, got the shape {weight}; state the image size with "
            "python -m interchange import PATH --out FOLDER --image-size HEIGHTxWIDTH"
        )
    size = image_size or (side << HALVINGS, side << HALVINGS)
    return {"name": f"iresnet{depth}", "embedding_size": weight[0]}, size


def _find_mobilefacenet(
    path: str, tensors: Mapping[str, StoredTensor], image_size: tuple[int, int] | None
) -> tuple[dict[str, Any], tuple[int, int]]:
    def name(own: str) -> str:
        return torch_name("mobilefacenet", own)

    stem = _require(path, tensors, name("stem.conv.weight"), axes=4)
    blocks = _stem_blocks(tensors)
    found = [n for n, (_, known) in MOBILEFACENETS.items() if known[0] == blocks]
    scale, remainder = divmod(stem[0], STEM_CHANNELS)
    if not found or remainder or not scale:
        raise InterchangeError(
            f"{path}: must be arcface_torch's get_mbf or get_mbf_large, got {blocks} blocks in the "
            f"stem with {stem[0]} channels; {_CURE}"
        )
    pool = _require(path, tensors, name("embedding.pool.conv.weight"), axes=4)
    weight = _require(path, tensors, name("embedding.linear.weight"), axes=2)
    size = image_size or (pool[2] << HALVINGS, pool[3] << HALVINGS)
    own = found[0] if scale == 1 else found[-1]
    net = {"name": own, "embedding_size": weight[0]}
    usual = settings(NETS[own])["scale"].default
    return {**net, **({} if scale == usual else {"scale": scale})}, size


def _stem_blocks(tensors: Mapping[str, StoredTensor]) -> int:
    """Return the number of bottlenecks of the stem; 1 if a single convolution takes their place."""
    pattern = re.compile(r"layers\.1\.layers\.(\d{1,4})\.layers\.")
    return len({match[1] for name in tensors if (match := pattern.match(name))}) or 1


def _require(
    path: str, tensors: Mapping[str, StoredTensor], name: str, axes: int
) -> tuple[int, ...]:
    """Return the shape of a tensor.

    Raise InterchangeError if the tensor is missing, does not have ``axes`` axes, or is empty.
    """
    shape = tensors[name].shape if name in tensors else None
    if shape is None or len(shape) != axes or 0 in shape:
        found = "no such tensor" if shape is None else f"the shape {shape}"
        raise InterchangeError(
            f"{path}: must have a non-empty tensor {name!r} with {axes} axes, got {found}; {_CURE}"
        )
    return shape
