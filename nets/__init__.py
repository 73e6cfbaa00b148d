# SPDX-License-Identifier: Apache-2.0
"""Networks that compute embeddings from aligned face images."""

from collections.abc import Callable
from typing import Any

from mxnet import gluon

from nets import graph
from nets.dpn import SETTINGS, dpn
from nets.efficientnet import efficientnet_b0
from nets.ghostnet import ghostnet
from nets.image_size import check_image_size
from nets.inception_resnet import inception_resnet_v2
from nets.iresnet import UNITS, iresnet
from nets.mobilefacenet import MobileFaceNet
from nets.mobilenet_v3 import mobilenet_v3
from nets.vision_transformer import SETTINGS as TRANSFORMERS
from nets.vision_transformer import vision_transformer
from ranges import checked_options

__all__ = ["NETS", "build_net", "check_image_size"]

NETS: dict[str, Callable[..., gluon.HybridBlock]] = {
    "mobilefacenet": MobileFaceNet,
    **{f"iresnet{depth}": iresnet(depth) for depth in UNITS},
    **{f"dpn{depth}": dpn(depth) for depth in SETTINGS},
    "inception_resnet_v2": inception_resnet_v2,
    "ghostnet": ghostnet,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet_b0": efficientnet_b0,
    **{name: vision_transformer(name) for name in TRANSFORMERS},
}
"""Mapping from the name of a network to the class or function that builds it.

The keyword-only arguments of a builder are the keys of ``net.*`` in a configuration."""


def build_net(
    name: str, image_size: tuple[int, int] = (112, 112), **kwargs: Any
) -> gluon.HybridBlock:
    """Build a network from its name; its weights have no values until `initialize()` is called.

    Parameters
    ----------
    name
        Name of the network, a key of ``NETS``, or "graph" for `nets.graph.GraphNet`.
    image_size
        (height, width) of the images in pixels; the network accepts only images of this size.
    kwargs
        Keyword-only arguments of the builder, for example ``embedding_size``.

    Raises
    ------
    ValueError
        If the name or a keyword is unknown, if a value is out of its range, or if the network does
        not support the image size.
    """
    if name == graph.NAME:
        return graph.GraphNet(image_size, **kwargs)
    options = checked_options("net", name, NETS, kwargs)
    return NETS[name](image_size, **options)
