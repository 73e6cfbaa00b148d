# SPDX-License-Identifier: Apache-2.0
"""Choice of the last layers, which compute the embedding from the last feature map."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from mxnet import gluon

from nets.blocks import PReLU
from nets.embedding_layers import (
    DenseEmbedding,
    FlattenedEmbedding,
    GlobalDepthwiseEmbedding,
    PooledEmbedding,
    WeightedPoolEmbedding,
)
from nets.image_size import check_features
from ranges import Within

MAX_EMBEDDING_SIZE = 8192
"""Largest number of dimensions of an embedding.

The limit refuses a mistyped number before its layers fill the memory."""
Output = Literal["E", "F", "FC", "G", "GAP", "GAP_PRELU", "GDC", "GNAP", "J", "Z"]
OUTPUTS: Mapping[str, str] = {
    "E": "batch normalisation, dropout, linear layer, batch normalisation",
    "F": "batch normalisation, dropout, linear layer with bias",
    "FC": "batch normalisation, linear layer, batch normalisation",
    "G": "batch normalisation, linear layer with bias",
    "GAP": "batch normalisation, PReLU, global average pooling, linear layer, batch normalisation",
    "GAP_PRELU": "the layers of GAP, then PReLU (GluonFR's residual networks)",
    "GDC": "global depthwise convolution, batch normalisation, linear layer, batch normalisation",
    "GNAP": "batch normalisation, pixels weighted to equal norm, global average pooling, batch "
    "normalisation, linear layer, batch normalisation",
    "J": "linear layer, batch normalisation",
    "Z": "batch normalisation, dropout; the embedding is the flattened feature map",
}
"""Mapping from the name of an embedding output to its layers.  InsightFace's MXNet code has these
names for all outputs but GAP_PRELU."""
DROPOUT_OUTPUTS = ("E", "F", "Z")
EmbeddingSize = Annotated[
    int, Within(1, MAX_EMBEDDING_SIZE, "embedding sizes from 128 to 512 are usual")
]
Dropout = Annotated[
    float,
    Within(0, 1, "dropout 0 disables dropout; the ArcFace paper uses 0.4", open_high=True),
]


def build_output(
    output: str,
    in_channels: int,
    embedding_size: int,
    feature_size: tuple[int, int],
    *,
    name: str,
    dropout: float = 0.0,
    pool_channels: int | None = None,
    activation: type[gluon.HybridBlock] = PReLU,
) -> gluon.HybridBlock:
    """Build the last layers of a network.

    Parameters
    ----------
    output
        Name of the embedding output, a key of ``OUTPUTS``.
    in_channels
        Number of channels C of the feature map.
    embedding_size
        Number of dimensions E of the embedding.
    feature_size
        (height, width) of the feature map in pixels.
    name
        Name of the network, for error messages.
    dropout
        Fraction of the values that training sets to 0, for the outputs of ``DROPOUT_OUTPUTS``.
    pool_channels
        Number of output channels of the convolution of "GDC"; None for as many as ``in_channels``.
    activation
        Block class of the activation before the pooling of "GAP" and "GAP_PRELU"; the only argument
        of the constructor is the number of channels.

    Outputs
    -------
    Block that maps feature maps (B, C, *feature_size) to embeddings (B, E).

    Raises
    ------
    ValueError
        If MXNet does not support the size of the linear layer, or if the flattened feature map of
        "Z" is too large or has another size than the embedding.
    """
    features = in_channels * math.prod(feature_size)
    if output == "Z":
        return FlattenedEmbedding(in_channels, _checked_size(features, embedding_size), dropout)
    if output == "GDC":
        return GlobalDepthwiseEmbedding(in_channels, embedding_size, feature_size, pool_channels)
    if output in ("GAP", "GAP_PRELU"):
        last = output == "GAP_PRELU"
        return PooledEmbedding(in_channels, embedding_size, activation, last_activation=last)
    if output == "GNAP":
        return WeightedPoolEmbedding(in_channels, embedding_size)
    check_features(name, feature_size, features, embedding_size)
    return DenseEmbedding(
        in_channels,
        embedding_size,
        feature_size,
        dropout if output in DROPOUT_OUTPUTS else 0.0,
        feature_norm=output != "J",
        norm=output not in ("F", "G"),
    )


def output_problems(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (setting, message) for each setting that the chosen output does not support."""
    output, dropout = options["output"], options["dropout"]
    if dropout and output not in DROPOUT_OUTPUTS:
        yield (
            "dropout",
            f"must be 0 for output {output!r}, which has no dropout, got {dropout:g}; use output "
            f"{', '.join(map(repr, DROPOUT_OUTPUTS[:-1]))} or {DROPOUT_OUTPUTS[-1]!r}",
        )


def _checked_size(features: int, embedding_size: int) -> int:
    """Return the embedding size of the output "Z"; raise ValueError if the size is invalid."""
    if features > MAX_EMBEDDING_SIZE:
        raise ValueError(
            f"net.output: the output 'Z' needs a feature map of at most {MAX_EMBEDDING_SIZE} "
            f"values, got {features}; use another output, a smaller width or smaller images"
        )
    if features != embedding_size:
        raise ValueError(
            f"net.embedding_size: must be {features} for output 'Z', which has no linear layer, "
            f"got {embedding_size}; use {features} or another output"
        )
    return features
