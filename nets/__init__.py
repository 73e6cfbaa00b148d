# SPDX-License-Identifier: Apache-2.0
"""Networks that turn aligned face images into embeddings."""

from collections.abc import Callable
from typing import Any

from mxnet import gluon

from nets.image_size import check_image_size
from nets.iresnet import UNITS, iresnet
from nets.mobilefacenet import MobileFaceNet
from ranges import checked_options

__all__ = ["NETS", "build_net", "check_image_size"]

NETS: dict[str, Callable[..., gluon.HybridBlock]] = {
    "mobilefacenet": MobileFaceNet,
    **{f"iresnet{depth}": iresnet(depth) for depth in UNITS},
}
"""Name -> builder; its keyword-only arguments are the schema of ``net.*`` in a configuration."""


def build_net(
    name: str, image_size: tuple[int, int] = (112, 112), **kwargs: Any
) -> gluon.HybridBlock:
    """Build a network by name; the caller still calls `initialize()`.

    Parameters
    ----------
    name
        A key of ``NETS``.
    image_size
        (height, width) of the images in pixels; the net accepts no other size.
    kwargs
        Keyword-only arguments of that builder.

    Raises
    ------
    ValueError
        If the name or a keyword is unknown, a value is out of its range, or the builder refuses the
        image size.
    """
    options = checked_options("net", name, NETS, kwargs)
    return NETS[name](image_size, **options)
