# SPDX-License-Identifier: Apache-2.0
"""Blocks of transformers: self-attention and a perceptron for each token.

Shapes: B is the number of images in the batch, L the number of tokens of an image, C the number of
channels of a token.
"""

from __future__ import annotations

from typing import Any

from mxnet import gluon, init
from mxnet.gluon import nn

LAYER_NORM_EPSILON = 1e-5
MLP_RATIO = 4
WEIGHT_DEVIATION = 0.02


def dense(inputs: int, outputs: int, *, bias: bool = True, flatten: bool = False) -> nn.Dense:
    """Create a linear layer on the last axis, with initial weights of standard deviation 0.02."""
    return nn.Dense(
        outputs,
        in_units=inputs,
        use_bias=bias,
        flatten=flatten,
        weight_initializer=init.Normal(WEIGHT_DEVIATION),
    )


class SelfAttention(gluon.HybridBlock):
    """Self-attention with several heads.

    Parameters
    ----------
    channels
        Number of channels C of a token, a multiple of ``heads``.
    heads
        Number of heads.

    Inputs
    ------
    x : (B, L, C) float32

    Outputs
    -------
    (B, L, C) float32

    Notes
    -----
    Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, section 3.2.
    """

    def __init__(self, channels: int, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._heads, self._head_channels = heads, channels // heads
        with self.name_scope():
            self.qkv = dense(channels, 3 * channels, bias=False)
            self.project = dense(channels, channels)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        heads = self._heads
        split = F.reshape(self.qkv(x), shape=(0, -1, 3 * heads, self._head_channels))
        split = F.transpose(split, axes=(0, 2, 1, 3))  # (B, 3 * heads, L, C / heads)
        query, key, value = (
            F.slice_axis(split, axis=1, begin=part * heads, end=(part + 1) * heads)
            for part in range(3)
        )
        scores = F.linalg_gemm2(query, key, transpose_b=True, alpha=self._head_channels**-0.5)
        mixed = F.linalg_gemm2(F.softmax(scores, axis=-1), value)  # (B, heads, L, C / heads)
        mixed = F.transpose(mixed, axes=(0, 2, 1, 3))
        return self.project(F.reshape(mixed, shape=(0, -1, heads * self._head_channels)))


class TransformerBlock(gluon.HybridBlock):
    """Transformer block: self-attention and a perceptron, each after a layer normalisation.

    Parameters
    ----------
    channels
        Number of channels C of a token.
    heads
        Number of heads of the self-attention.
    drop_path
        Probability that training skips the self-attention for an image.  The perceptron is skipped
        with the same probability, independently of the self-attention.

    Inputs
    ------
    x : (B, L, C) float32

    Outputs
    -------
    (B, L, C) float32

    Notes
    -----
    Dosovitskiy et al., arXiv:2010.11929, equations 2 and 3, with ReLU6 in the perceptron.
    """

    def __init__(self, channels: int, heads: int, drop_path: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.attention_norm = nn.LayerNorm(in_channels=channels, epsilon=LAYER_NORM_EPSILON)
            self.attention = SelfAttention(channels, heads)
            self.mlp_norm = nn.LayerNorm(in_channels=channels, epsilon=LAYER_NORM_EPSILON)
            self.expand = dense(channels, MLP_RATIO * channels)
            self.reduce = dense(MLP_RATIO * channels, channels)
            # With axes=(1, 2), one random number applies to all values of an image.
            self.drop_path = nn.Dropout(drop_path, axes=(1, 2))

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = F.elemwise_add(x, self.drop_path(self.attention(self.attention_norm(x))))
        hidden = F.clip(self.expand(self.mlp_norm(x)), 0.0, 6.0)
        return F.elemwise_add(x, self.drop_path(self.reduce(hidden)))
