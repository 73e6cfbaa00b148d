# SPDX-License-Identifier: Apache-2.0
"""Last layers: from the final feature map to the embedding."""

import math

from mxnet import gluon, init
from mxnet.gluon import nn

from nets.blocks import BN_EPSILON, BN_MOMENTUM, BatchNorm, ConvNorm


class GlobalDepthwiseEmbedding(gluon.HybridBlock):
    """Global depthwise convolution (GDC), linear map to the embedding, batch normalisation.

    Parameters
    ----------
    in_channels
        Channels C of the feature map.
    embedding_size
        Length E of the embedding.
    feature_size
        (height, width) of the feature map in pixels, the size of the depthwise filter.

    Inputs
    ------
    x : (B, C, *feature_size) float32

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
        self,
        in_channels: int,
        embedding_size: int,
        feature_size: tuple[int, int] = (7, 7),
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.pool = ConvNorm(in_channels, in_channels, feature_size, groups=in_channels)
            self.linear = _linear(in_channels, embedding_size)
            self.norm = _fixed_scale_norm(embedding_size)

    def hybrid_forward(self, F, x):
        return _normalise(F, self.norm, self.linear(self.pool(x)))


class DenseEmbedding(gluon.HybridBlock):
    """Batch normalisation, dropout, linear map of the whole feature map, batch normalisation.

    Parameters
    ----------
    in_channels
        Channels C of the feature map.
    embedding_size
        Length E of the embedding.
    feature_size
        (height, width) of the feature map in pixels.
    dropout
        Share of the features that is dropped in training, from 0 to below 1.

    Inputs
    ------
    x : (B, C, *feature_size) float32

    Outputs
    -------
    (B, E) float32

    Notes
    -----
    Output option "E" of Deng et al., "ArcFace", arXiv:1801.07698, network settings of version 1.
    The last batch normalisation keeps its scale at 1 and in training needs at least two images, as
    in `GlobalDepthwiseEmbedding`.
    """

    def __init__(
        self,
        in_channels: int,
        embedding_size: int,
        feature_size: tuple[int, int] = (7, 7),
        dropout: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.feature_norm = BatchNorm(in_channels)
            self.dropout = nn.Dropout(dropout)
            self.linear = _linear(in_channels * math.prod(feature_size), embedding_size)
            self.norm = _fixed_scale_norm(embedding_size)

    def hybrid_forward(self, F, x):
        return _normalise(F, self.norm, self.linear(self.dropout(self.feature_norm(x))))


def _linear(features: int, embedding_size: int) -> nn.Dense:
    """Return the linear map to the embedding; it flattens its input."""
    return nn.Dense(
        embedding_size,
        in_units=features,
        use_bias=False,  # the batch normalisation after it has one
        weight_initializer=init.Normal(math.sqrt(1.0 / features)),
    )


def _fixed_scale_norm(embedding_size: int) -> nn.BatchNorm:
    """Return a batch normalisation whose scale stays at 1."""
    norm = nn.BatchNorm(momentum=BN_MOMENTUM, epsilon=BN_EPSILON, in_channels=embedding_size)
    # Not BatchNorm(scale=False): its gradient for beta is reported wrong on some GPUs.
    # A frozen gamma of 1 is the same function and takes the ordinary path.
    norm.gamma.grad_req = "null"
    return norm


def _normalise(F, norm: nn.BatchNorm, embedding):
    """Normalise (B, E) over the batch."""
    # Normalised as (B, E, 1, 1): MXNet keeps oneDNN's batch normalisations by shape and takes
    # that of (B, C, 1, 1) for (B, E) where C = E, which ends in a segmentation fault.
    return F.flatten(norm(F.reshape(embedding, shape=(0, -1, 1, 1))))
