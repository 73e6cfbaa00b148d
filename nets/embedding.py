# SPDX-License-Identifier: Apache-2.0
"""Last layers: from the final feature map to the embedding."""

import math
from typing import Any

from mxnet import gluon, init
from mxnet.gluon import nn

from nets.blocks import BN_EPSILON, BN_MOMENTUM, BatchNorm, ConvNorm


class GlobalDepthwiseEmbedding(gluon.HybridBlock):
    """Global depthwise convolution (GDC), linear map to the embedding, batch normalisation.

    Parameters
    ----------
    in_channels
        Number of channels C of the feature map.
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
    normalisation has a fixed scale of 1, because the head normalises the length of the embeddings.
    In training it needs at least two images, because the variance of one image is 0.
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
    """Batch normalisation, dropout, linear map of the whole feature map, batch normalisation.

    Parameters
    ----------
    in_channels
        Number of channels C of the feature map.
    embedding_size
        Length E of the embedding.
    feature_size
        (height, width) of the feature map in pixels.
    dropout
        Fraction of the features dropped in training, from 0 to below 1.

    Inputs
    ------
    x : (B, C, *feature_size) float32

    Outputs
    -------
    (B, E) float32

    Notes
    -----
    Output option "E" of Deng et al., "ArcFace", arXiv:1801.07698, network settings of version 1.
    For the last batch normalisation see `GlobalDepthwiseEmbedding`.
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
    """Return the linear map to the embedding; it flattens its input."""
    return nn.Dense(
        embedding_size,
        in_units=features,
        use_bias=False,  # the next batch normalisation has a bias
        weight_initializer=init.Normal(math.sqrt(1.0 / features)),
    )


def _fixed_scale_norm(embedding_size: int) -> nn.BatchNorm:
    """Return a batch normalisation with a fixed scale of 1."""
    norm = nn.BatchNorm(momentum=BN_MOMENTUM, epsilon=BN_EPSILON, in_channels=embedding_size)
    # Not BatchNorm(scale=False), whose gradient of beta is reported to be wrong on some GPUs. A
    # frozen gamma of 1 is the same function and uses the common code.
    norm.gamma.grad_req = "null"
    return norm


def _normalise(F: Any, norm: nn.BatchNorm, embedding: Any) -> Any:
    """Normalise (B, E) over the batch."""
    # As (B, E, 1, 1): MXNet caches oneDNN's batch normalisations by shape and reuses that of
    # (B, C, 1, 1) for (B, E) if C = E, which causes a segmentation fault.
    return F.flatten(norm(F.reshape(embedding, shape=(0, -1, 1, 1))))
