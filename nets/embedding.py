# SPDX-License-Identifier: Apache-2.0
"""Last layers: from the final feature map to the embedding."""

import math

from mxnet import gluon, init
from mxnet.gluon import nn

from nets.blocks import BN_EPSILON, BN_MOMENTUM, ConvNorm


class GlobalDepthwiseEmbedding(gluon.HybridBlock):
    """Global depthwise convolution (GDC), linear map to the embedding, batch normalisation.

    Parameters
    ----------
    in_channels
        Channels C of the feature map.
    embedding_size
        Length E of the embedding.
    feature_size
        Height and width of the feature map in pixels, the size of the depthwise filter.

    Inputs
    ------
    x : (B, C, feature_size, feature_size) float32

    Outputs
    -------
    (B, E) float32

    Notes
    -----
    Chen et al., "MobileFaceNets", arXiv:1804.07573, section 3.1, equation 1. The last batch
    normalisation keeps its scale at 1, as all embeddings share one length budget that the head
    normalises away. In training it needs at least two images: the variance of one is 0.
    """

    def __init__(
        self, in_channels: int, embedding_size: int, feature_size: int = 7, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.pool = ConvNorm(in_channels, in_channels, feature_size, groups=in_channels)
            self.linear = nn.Dense(
                embedding_size,
                in_units=in_channels,
                use_bias=False,  # the batch normalisation below has one
                weight_initializer=init.Normal(math.sqrt(1.0 / in_channels)),
            )
            self.norm = nn.BatchNorm(
                momentum=BN_MOMENTUM, epsilon=BN_EPSILON, in_channels=embedding_size
            )
            # Not BatchNorm(scale=False): its gradient for beta is reported wrong on some GPUs.
            # A frozen gamma of 1 is the same function and takes the ordinary path.
            self.norm.gamma.grad_req = "null"

    def hybrid_forward(self, F, x):
        # Normalised as (B, E, 1, 1): MXNet keeps oneDNN's batch normalisations by shape and takes
        # that of (B, C, 1, 1) for (B, E) where C = E, which ends in a segmentation fault.
        embedding = F.reshape(self.linear(self.pool(x)), shape=(0, -1, 1, 1))
        return F.flatten(self.norm(embedding))
