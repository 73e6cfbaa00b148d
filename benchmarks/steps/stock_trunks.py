# SPDX-License-Identifier: Apache-2.0
"""Trunks as gluoncv2 builds them, to compare our networks with."""

from __future__ import annotations

from mxnet.gluon import nn

STOCK_NAMES = {
    "dpn68": "dpn68",
    "dpn107": "dpn107",
    "dpn131": "dpn131",
    "inception_resnet_v2": "inceptionresnetv2",
    "ghostnet": "ghostnet",
    "mobilenet_v3": "mobilenetv3_large_w1",
    "efficientnet_b0": "efficientnet_b0",
}
"""Mapping from our name of a network to gluoncv2's; gluoncv2 lacks DPN-92."""


def stock_trunk(name: str) -> nn.HybridSequential:
    """Return the trunk of a classification network from gluoncv2, without the last pooling.

    Parameters
    ----------
    name
        Our name of the network, a key of ``STOCK_NAMES``.
    """
    from gluoncv2.model_provider import get_model

    trunk = get_model(STOCK_NAMES[name]).features
    last, layer = list(trunk._children.items())[-1]
    if isinstance(layer, nn.AvgPool2D | nn.GlobalAvgPool2D):
        del trunk._children[last]
    return trunk
