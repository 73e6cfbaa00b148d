# SPDX-License-Identifier: Apache-2.0
"""Build the Gluon network of a stored model."""

from __future__ import annotations

from typing import Any

import mxnet as mx

from interchange.model import InterchangeError, StoredModel
from nets import build_net


def build_stored_net(model: StoredModel, ctx: Any = None) -> mx.gluon.HybridBlock:
    """Build the network of a stored model, with the stored weights.

    Parameters
    ----------
    ctx
        Device of the weights; None for the CPU.

    Outputs
    -------
    Network from images (B, 3, *model.image_size), normalised as `normalization` defines, to
    embeddings (B, E), which are not normalised.  The network is not hybridized.

    Raises
    ------
    InterchangeError
        If the name or the shape of a weight does not fit the network.
    """
    ctx = ctx or mx.cpu()
    net = build_net(image_size=model.image_size, **model.net)
    own = net._collect_params_with_prefix()
    for name in sorted({*own, *model.parameters}):
        if name not in own or name not in model.parameters:
            problem = "is missing" if name in own else f"does not belong to {model.net['name']}"
            raise InterchangeError(
                f"{model.source}: the weight {name!r} {problem}, got {len(model.parameters)} "
                "weights; import the model again"
            )
        expected, found = tuple(own[name].shape), model.parameters[name].shape
        if expected != found:
            raise InterchangeError(
                f"{model.source}: the weight {name!r} must have shape {expected}, got {found}; "
                "import the model again"
            )
    for name, parameter in own.items():
        parameter._load_init(mx.nd.array(model.parameters[name], dtype="float32"), ctx)
    return net
