# SPDX-License-Identifier: Apache-2.0
"""Models of the commands: read a model file, and build its network."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interchange.model import StoredModel


def read_model(path: str, quiet: bool = False) -> StoredModel:
    """Read the model of a file or folder; print each of its notices on stderr unless ``quiet``."""
    from interchange.open_model import open_model

    model = open_model(path)
    for notice in () if quiet else model.notices:
        print(f"evaluation: {notice}", file=sys.stderr)
    return model


def build_net_on(model: StoredModel, ctx: Any, quiet: bool = False) -> Any:
    """Build the network of a model, with its weights on the device `ctx`; return it hybridized.

    The network uses the fused operators for inference if they are available.  If a network on the
    CPU cannot use them, the reason is printed on stderr unless ``quiet``.
    """
    import ops
    from interchange.stored_net import build_stored_net

    notice = ops.use("auto", ctx.device_type, ctx.device_id)
    if notice and not ops.fused() and ctx.device_type == "cpu" and not quiet:
        print(f"evaluation: {notice}", file=sys.stderr)
    net = build_stored_net(model, ctx)
    net.hybridize(static_alloc=True, static_shape=True)
    return net
