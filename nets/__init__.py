# SPDX-License-Identifier: Apache-2.0
"""Networks that compute embeddings from aligned face images."""

from collections.abc import Callable
from typing import Any

from mxnet import gluon

from nets import graph
from nets.attention import MODULES, attention
from nets.densenet import LAYERS as DENSENETS
from nets.densenet import densenet
from nets.dpn import SETTINGS as DPNS
from nets.dpn import dpn
from nets.efficientnet import efficientnet_b0
from nets.ghostnet import ghostnet
from nets.image_size import check_image_size
from nets.inception_resnet import inception_resnet_v2
from nets.iresnet import UNITS, iresnet
from nets.mnasnet import mnasnet
from nets.mobilefacenet import mobilefacenet
from nets.mobilenet_v1 import mobilenet_v1
from nets.mobilenet_v3 import mobilenet_v3
from nets.seresnet import LAYERS as SERESNETS
from nets.seresnet import seresnet
from nets.vargfacenet import vargfacenet
from nets.vision_transformer import SETTINGS as TRANSFORMERS
from nets.vision_transformer import vision_transformer
from ranges import checked_options

__all__ = ["ALIASES", "NETS", "build_net", "check_image_size"]

_OWN_NAMES: dict[str, Callable[..., gluon.HybridBlock]] = {
    "mobilefacenet": mobilefacenet(
        "mobilefacenet",
        text="MobileFaceNet: bottlenecks, and a global depthwise convolution before the embedding.",
    ),
    "mobilefacenet_y2": mobilefacenet(
        "mobilefacenet_y2",
        blocks=(2, 8, 16, 4),
        embedding_size=256,
        text="MobileFaceNet with about twice as many blocks; y2 of InsightFace's MXNet code.",
    ),
    "mbf": mobilefacenet(
        "mbf",
        scale=2,
        embedding_size=512,
        text="MobileFaceNet whose bottlenecks have twice as many output channels; mbf of "
        "arcface_torch.",
    ),
    "mbf_large": mobilefacenet(
        "mbf_large",
        blocks=(2, 8, 12, 4),
        scale=4,
        stem_expansion=128,
        embedding_size=512,
        text="MobileFaceNet with more bottlenecks, which have four times as many output channels; "
        "mbf_large of arcface_torch.",
    ),
    "gluonfr_mobilefacenet": mobilefacenet(
        "gluonfr_mobilefacenet",
        se=True,
        text="MobileFaceNet with squeeze-and-excitation; GluonFR's MobileFaceNet with use_se=True.",
    ),
    **{f"iresnet{depth}": iresnet(depth) for depth in UNITS},
    "mobilenet_v1": mobilenet_v1("mobilenet_v1", 1.0),
    "mnasnet": mnasnet("mnasnet", 1.0),
    **{f"densenet{depth}": densenet(depth) for depth in DENSENETS},
    "vargfacenet": vargfacenet(),
    **{f"seresnet{depth}": seresnet(depth) for depth in SERESNETS},
    **{f"attention{depth}": attention(depth) for depth in MODULES},
    **{f"dpn{depth}": dpn(depth) for depth in DPNS},
    "inception_resnet_v2": inception_resnet_v2,
    "ghostnet": ghostnet,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet_b0": efficientnet_b0,
    **{name: vision_transformer(name) for name in TRANSFORMERS},
}
_SHORT_NAMES: dict[str, tuple[str, Callable[..., gluon.HybridBlock] | None]] = {
    "y1": ("mobilefacenet", None),
    "y2": ("mobilefacenet_y2", None),
    **{f"r{depth}": (f"iresnet{depth}", None) for depth in UNITS},
    "m1": ("mobilenet_v1", None),
    "m05": ("mobilenet_v1", mobilenet_v1("m05", 0.5)),
    "mnas": ("mnasnet", None),
    "mnas05": ("mnasnet", mnasnet("mnas05", 0.5)),
    "mnas025": ("mnasnet", mnasnet("mnas025", 0.25)),
    "d169": ("densenet169", None),
    "d201": ("densenet201", None),
}
ALIASES: dict[str, str] = {alias: name for alias, (name, _) in _SHORT_NAMES.items()}
"""Mapping from a short name in InsightFace to the name of the network here.  The default width of
m05, mnas05 and mnas025 is smaller than that of the networks to which they map."""

NETS: dict[str, Callable[..., gluon.HybridBlock]] = {
    **_OWN_NAMES,
    **{alias: build or _OWN_NAMES[name] for alias, (name, build) in _SHORT_NAMES.items()},
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
