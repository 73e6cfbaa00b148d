# SPDX-License-Identifier: Apache-2.0
"""Squeeze-and-excitation: factors for channels, computed from the means of all channels."""

import math
from typing import Any

from mxnet import gluon, init
from mxnet.gluon import nn

from nets.blocks import PReLU


class SqueezeExcitation(gluon.HybridBlock):
    """Scaling of each channel by a factor that is computed from the means of all channels.

    Layers that compute the factor: global average pooling, 1x1 convolution, PReLU, 1x1 convolution,
    sigmoid.

    Parameters
    ----------
    channels
        Number of channels C.
    ratio
        Quotient of C and the number of channels between the two convolutions.

    Inputs
    ------
    x : (B, C, H, W) float32

    Outputs
    -------
    (B, C, H, W) float32

    Notes
    -----
    Hu et al., "Squeeze-and-Excitation Networks", arXiv:1709.01507, section 3, with PReLU instead of
    ReLU as in InsightFace and GluonFR.
    """

    def __init__(self, channels: int, ratio: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        hidden = max(1, channels // ratio)
        with self.name_scope():
            self.squeeze = self._convolution(channels, hidden)
            self.act = PReLU(hidden, fused=False)
            self.excite = self._convolution(hidden, channels)

    @staticmethod
    def _convolution(in_channels: int, channels: int) -> nn.Conv2D:
        weights = init.Normal(math.sqrt(2.0 / in_channels))
        return nn.Conv2D(channels, 1, in_channels=in_channels, weight_initializer=weights)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        mean = F.Pooling(x, global_pool=True, kernel=(1, 1), pool_type="avg")
        return F.broadcast_mul(x, F.sigmoid(self.excite(self.act(self.squeeze(mean)))))
