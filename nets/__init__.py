# SPDX-License-Identifier: Apache-2.0
"""Networks that turn aligned face images into embeddings."""

import difflib
import inspect
from collections.abc import Callable

from mxnet import gluon

from nets.checks import check_image_size
from nets.iresnet import iresnet18, iresnet34, iresnet50, iresnet100
from nets.mobilefacenet import mobilefacenet

__all__ = ["NETS", "build_net", "check_image_size"]

# Name -> builder. The builder's keyword-only arguments are the schema of `net.*` in a config.
NETS: dict[str, Callable[..., gluon.HybridBlock]] = {
    "mobilefacenet": mobilefacenet,
    "iresnet18": iresnet18,
    "iresnet34": iresnet34,
    "iresnet50": iresnet50,
    "iresnet100": iresnet100,
}


def build_net(name: str, image_size: tuple[int, int] = (112, 112), **kwargs) -> gluon.HybridBlock:
    """Build a network by name; it still needs `initialize()`.

    Parameters
    ----------
    name
        A key of ``NETS``.
    image_size
        (height, width) of the images in pixels; the net takes no others.
    kwargs
        Keyword-only arguments of that builder.

    Raises
    ------
    ValueError
        If the name or a keyword is unknown, or the builder refuses a value or the image size.
    """
    if name not in NETS:
        near = difflib.get_close_matches(str(name), NETS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"net.name: unknown net {name!r}; {hint}known: {', '.join(NETS)}")
    parameters = inspect.signature(NETS[name]).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for key in kwargs:
        if key not in known:
            raise ValueError(f"net.{key}: no setting of net {name!r}; known: {', '.join(known)}")
    return NETS[name](image_size, **kwargs)
