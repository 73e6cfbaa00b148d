# SPDX-License-Identifier: Apache-2.0
"""Blocks of the last layers, which compute the embedding from the last feature map.

Shapes: B is the number of images in the batch, C the number of channels of the feature map, E the
number of dimensions of an embedding, H and W are the height and the width of the feature map.
"""

import math
from typing import Any

from mxnet import gluon, init
from mxnet.gluon import nn

from nets.blocks import BatchNorm, ConvNorm, ConvNormPReLU, PReLU, fixed_norm

NORM_EPSILON = 1e-10
"""Number added to the squared norm of a pixel, so that the norm of a pixel of zeros has a finite
gradient."""


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
    pool_channels
        Number of output channels and of groups of the convolution; None for ``in_channels``, which
        makes the convolution depthwise. InsightFace's MobileNetV1 has half as many groups as input
        channels.

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
        pool_channels: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        channels = pool_channels or in_channels
        with self.name_scope():
            self.pool = ConvNorm(in_channels, channels, feature_size, groups=channels)
            self.linear = _linear(channels, embedding_size)
            self.norm = fixed_norm(embedding_size)

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
    feature_norm
        Whether the first layer is a batch normalisation.
    norm
        Whether the last layer is a batch normalisation; if not, the linear layer has a bias.

    Inputs
    ------
    x : (B, C, *feature_size) float32

    Outputs
    -------
    (B, E) float32

    Notes
    -----
    Output "E" of Deng et al., "ArcFace", arXiv:1801.07698, network settings of version 1. In the
    code of InsightFace, the other combinations of layers have these names: "FC" without dropout,
    "F" without ``norm``, "G" without ``norm`` and dropout, "J" without ``feature_norm`` and
    dropout. `GlobalDepthwiseEmbedding` explains the fixed scale of the last batch normalisation.
    """

    def __init__(
        self,
        in_channels: int,
        embedding_size: int,
        feature_size: tuple[int, int] = (7, 7),
        dropout: float = 0.0,
        *,
        feature_norm: bool = True,
        norm: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        features = in_channels * math.prod(feature_size)
        with self.name_scope():
            self.feature_norm = BatchNorm(in_channels) if feature_norm else None
            self.dropout = nn.Dropout(dropout)
            self.linear = _linear(features, embedding_size, use_bias=not norm)
            self.norm = fixed_norm(embedding_size) if norm else None

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        if self.feature_norm is not None:
            x = self.feature_norm(x)
        embedding = self.linear(self.dropout(x))
        return embedding if self.norm is None else _normalise(F, self.norm, embedding)


class PooledEmbedding(gluon.HybridBlock):
    """Last layers: batch normalisation, activation, average pooling, linear layer, normalisation.

    Parameters
    ----------
    in_channels
        Number of channels C of the feature map.
    embedding_size
        Number of dimensions E of the embedding.
    activation
        Block class of the activation; the only argument of the constructor is the number of
        channels.
    last_activation
        Whether PReLU follows the last batch normalisation.

    Inputs
    ------
    x : (B, C, H, W) float32

    Outputs
    -------
    (B, E) float32

    Notes
    -----
    Output "GAP" of InsightFace's MXNet code, the global average pooling of Lin et al., "Network In
    Network", arXiv:1312.4400, section 3.2.  GluonFR's residual networks have the last activation.
    """

    def __init__(
        self,
        in_channels: int,
        embedding_size: int,
        activation: type[gluon.HybridBlock] = PReLU,
        *,
        last_activation: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.feature_norm = BatchNorm(in_channels, fused=False)
            self.act = activation(in_channels)
            self.linear = _linear(in_channels, embedding_size)
            self.norm = fixed_norm(embedding_size)
            # Each channel has one pixel here, so a fused operator would save nothing.
            self.last_act = PReLU(embedding_size, fused=False) if last_activation else None

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.act(self.feature_norm(x))
        x = self.linear(F.Pooling(x, global_pool=True, kernel=(1, 1), pool_type="avg"))
        x = self.norm(F.reshape(x, shape=(0, -1, 1, 1)))
        return F.flatten(x if self.last_act is None else self.last_act(x))


class WeightedPoolEmbedding(gluon.HybridBlock):
    """Last layers: global norm-aware pooling (GNAP), linear layer, batch normalisation.

    Each pixel of the feature map is scaled to the mean norm of the pixels of its image, then the
    pixels are averaged.

    Parameters
    ----------
    in_channels
        Number of channels C of the feature map.
    embedding_size
        Number of dimensions E of the embedding.  For E < C a linear layer follows the pooling, for
        E > C a 1x1 convolution precedes the pooling.

    Inputs
    ------
    x : (B, C, H, W) float32

    Outputs
    -------
    (B, E) float32

    Notes
    -----
    Output "GNAP" of InsightFace's MXNet code.  One thing differs: InsightFace takes the mean norm
    over all images of the batch.
    """

    def __init__(self, in_channels: int, embedding_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        channels = max(in_channels, embedding_size)
        with self.name_scope():
            self.expand = (
                ConvNormPReLU(in_channels, channels, fused=False)
                if channels > in_channels
                else None
            )
            self.feature_norm = fixed_norm(channels)
            fewer = embedding_size < channels
            self.pool_norm = fixed_norm(channels) if fewer else None
            self.linear = _linear(channels, embedding_size) if fewer else None
            self.norm = fixed_norm(embedding_size)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.feature_norm(x if self.expand is None else self.expand(x))
        squares = F.sum(F.square(x), axis=1, keepdims=True)  # (B, 1, H, W)
        norms = F.sqrt(squares + NORM_EPSILON)
        # The mean of an image, not of the batch: an embedding must not depend on other images.
        mean = F.mean(norms, axis=(1, 2, 3), keepdims=True)
        x = F.broadcast_mul(x, F.broadcast_div(mean, norms))
        x = F.Pooling(x, global_pool=True, kernel=(1, 1), pool_type="avg")
        if self.pool_norm is not None and self.linear is not None:
            x = self.linear(self.pool_norm(x))
        return _normalise(F, self.norm, x)


class FlattenedEmbedding(gluon.HybridBlock):
    """Last layers: batch normalisation, dropout; the embedding is the flattened feature map.

    Parameters
    ----------
    in_channels
        Number of channels C of the feature map.
    embedding_size
        Number of values of the feature map.
    dropout
        Fraction of the values of the feature map that training sets to 0, from 0 to below 1.

    Inputs
    ------
    x : (B, C, H, W) float32

    Outputs
    -------
    (B, C * H * W) float32

    Notes
    -----
    Output "Z" of InsightFace's MXNet code.
    """

    def __init__(
        self, in_channels: int, embedding_size: int, dropout: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.embedding_size = embedding_size
        with self.name_scope():
            self.feature_norm = BatchNorm(in_channels)
            self.dropout = nn.Dropout(dropout)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.flatten(self.dropout(self.feature_norm(x)))


def _linear(features: int, embedding_size: int, use_bias: bool = False) -> nn.Dense:
    """Create the linear layer that computes the embedding from the flattened features."""
    return nn.Dense(
        embedding_size,
        in_units=features,
        use_bias=use_bias,  # useless if a batch normalisation follows, which subtracts the mean
        weight_initializer=init.Normal(math.sqrt(1.0 / features)),
    )


def _normalise(F: Any, norm: nn.BatchNorm, embedding: Any) -> Any:
    """Apply a batch normalisation to embeddings of shape (B, E)."""
    # Reshape to (B, E, 1, 1) to avoid a segmentation fault. For an input (B, E), MXNet would reuse
    # a cached oneDNN batch normalisation that was created for an input (B, E, 1, 1).
    return F.flatten(norm(F.reshape(embedding, shape=(0, -1, 1, 1))))
