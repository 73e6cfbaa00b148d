# SPDX-License-Identifier: Apache-2.0
"""Last layers of the networks, which compute the embedding from the last feature map.

Shapes: B is the number of images in the batch, C the number of channels of the feature map, E the
number of dimensions of an embedding.
"""

import math
from typing import Any

from mxnet import gluon, init
from mxnet.gluon import nn

from nets.blocks import BN_EPSILON, BN_MOMENTUM, BatchNorm, ConvNorm

MAX_EMBEDDING_SIZE = 8192
"""Largest number of dimensions of an embedding; a typing error must not fill the memory."""


class GlobalDepthwiseEmbedding(gluon.HybridBlock):
    """Last layers: global depthwise convolution (GDC), linear layer, batch normalisation.

    Parameters
    ----------
    in_channels
        Number of channels C of the feature map.
    embedding_size
        Number of dimensions E of the embedding.
    feature_size
        (height, width) of the feature map in pixels. The depthwise filter has the same size.

    Inputs
    ------
    x : (B, C, *feature_size) float32

    Outputs
    -------
    (B, E) float32

    Notes
    -----
    Chen et al., "MobileFaceNets", arXiv:1804.07573, section 3.1, equation 1. The last batch
    normalisation has a fixed scale (gamma) of 1, because the head normalises the embeddings. In
    training this layer needs batches of at least two images, because the variance over a single
    image is 0.
    """

    def __init__(
        self,
        in_channels: int,
        embedding_size: int,
        feature_size: tuple[int, int] = (7, 7),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.pool = ConvNorm(in_channels, in_channels, feature_size, groups=in_channels)
            self.linear = _linear(in_channels, embedding_size)
            self.norm = _fixed_scale_norm(embedding_size)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return _normalise(F, self.norm, self.linear(self.pool(x)))


class DenseEmbedding(gluon.HybridBlock):
    """Last layers: batch normalisation, dropout, linear layer, batch normalisation.

    Parameters
    ----------
    in_channels
        Number of channels C of the feature map.
    embedding_size
        Number of dimensions E of the embedding.
    feature_size
        (height, width) of the feature map in pixels.
    dropout
        Fraction of the values of the feature map that training sets to 0, from 0 to below 1.

    Inputs
    ------
    x : (B, C, *feature_size) float32

    Outputs
    -------
    (B, E) float32

    Notes
    -----
    Output option "E" of Deng et al., "ArcFace", arXiv:1801.07698, network settings of version 1.
    `GlobalDepthwiseEmbedding` explains the fixed scale of the last batch normalisation.
    """

    def __init__(
        self,
        in_channels: int,
        embedding_size: int,
        feature_size: tuple[int, int] = (7, 7),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.feature_norm = BatchNorm(in_channels)
            self.dropout = nn.Dropout(dropout)
            self.linear = _linear(in_channels * math.prod(feature_size), embedding_size)
            self.norm = _fixed_scale_norm(embedding_size)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return _normalise(F, self.norm, self.linear(self.dropout(self.feature_norm(x))))


def _linear(features: int, embedding_size: int) -> nn.Dense:
    """Create the linear layer that computes the embedding from the flattened features."""
    return nn.Dense(
        embedding_size,
        in_units=features,
        use_bias=False,  # batch normalisation follows and has a bias
        weight_initializer=init.Normal(math.sqrt(1.0 / features)),
    )


def _fixed_scale_norm(embedding_size: int) -> nn.BatchNorm:
    """Create a batch normalisation of the embedding with a fixed scale (gamma) of 1."""
    norm = nn.BatchNorm(momentum=BN_MOMENTUM, epsilon=BN_EPSILON, in_channels=embedding_size)
    # A frozen gamma of 1 computes the same function as BatchNorm(scale=False), whose gradient of
    # beta is reported to be wrong on some GPUs.
    norm.gamma.grad_req = "null"
    return norm


def _normalise(F: Any, norm: nn.BatchNorm, embedding: Any) -> Any:
    """Apply a batch normalisation to embeddings of shape (B, E)."""
    # Reshape to (B, E, 1, 1) to avoid a segmentation fault. For an input (B, E), MXNet would reuse
    # a cached oneDNN batch normalisation that was created for an input (B, E, 1, 1).
    return F.flatten(norm(F.reshape(embedding, shape=(0, -1, 1, 1))))
