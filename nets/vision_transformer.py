# SPDX-License-Identifier: Apache-2.0
"""Vision transformers: self-attention between the patches of an image."""

import math
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from mxnet import autograd, gluon, init
from mxnet.gluon import nn

from nets.blocks import BN_MOMENTUM
from nets.embedding import EmbeddingSize
from nets.image_size import check_features, check_image_size
from nets.self_attention import LAYER_NORM_EPSILON, WEIGHT_DEVIATION, TransformerBlock, dense
from nets.trunk import TYPICAL_EMBEDDING_SIZE
from ops.mode_graphs import ModeGraphs
from ranges import Within

PATCH_PIXELS = 9
"""Height and width of a patch in pixels; pixels beyond the last whole patch are ignored."""
NORM_EPSILON = 2e-5
"""Number added to the variance in the batch normalisations, as in arcface_torch."""


class Settings(NamedTuple):
    """Sizes of one vision transformer."""

    channels: int
    """Number of channels of a token."""
    depth: int
    """Number of blocks."""


SETTINGS = {"vit_t": Settings(256, 12), "vit_s": Settings(512, 12)}
"""Mapping from the name of a vision transformer to its sizes."""
HEADS = 8
DropPath = Annotated[
    float, Within(0, 1, "arcface_torch uses 0.1, and 0.05 for WebFace42M", open_high=True)
]
MaskRatio = Annotated[float, Within(0, 0.9, "arcface_torch uses 0.1, and 0 or 0.05 for WebFace42M")]
Depth = Annotated[int, Within(1, 100, "vit_t and vit_s have 12 blocks")]


def count_kept(tokens: int, ratio: float) -> int:
    """Return how many tokens, at least 1, remain if training removes the fraction ``ratio``."""
    return max(1, int(tokens * (1 - ratio)))


class MaskedTokens(gluon.HybridBlock):
    """Removal of random tokens in training; after the blocks, a learned token fills their places.

    Parameters
    ----------
    tokens
        Number of tokens L of an image.
    channels
        Number of channels C of a token.
    ratio
        Fraction of the tokens of an image that training removes, from 0 to below 1; one token
        always remains.

    Notes
    -----
    He et al., "Masked Autoencoders", arXiv:2111.06377, section 3. For each image, a matrix of zeros
    and ones selects the tokens that remain. The product with the matrix removes the other tokens.
    The product with the transposed matrix puts the remaining tokens back in their places.
    """

    def __init__(self, tokens: int, channels: int, ratio: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokens = tokens
        self.kept = count_kept(tokens, ratio)
        with self.name_scope():
            self.token = self.params.get(
                "token", shape=(1, 1, channels), init=init.Normal(WEIGHT_DEVIATION)
            )

    def draw(self, F: Any, x: Any) -> Any:
        """Return random matrices (B, kept, L) that select ``kept`` tokens of each image."""
        noise = F.random.uniform_like(F.slice_axis(x, axis=2, begin=0, end=1))
        order = F.argsort(F.reshape(noise, shape=(0, -1)), axis=1)
        return F.one_hot(F.slice_axis(order, axis=1, begin=0, end=self.kept), depth=self.tokens)

    def hybrid_forward(self, F: Any, x: Any, chosen: Any, token: Any) -> Any:
        """Put tokens (B, kept, C) back in their places; empty places get the learned token."""
        missing = F.expand_dims(1.0 - F.sum(chosen, axis=1), axis=2)  # (B, L, 1)
        restored = F.linalg_gemm2(chosen, x, transpose_a=True)
        return F.elemwise_add(restored, F.broadcast_mul(missing, token))


class VisionTransformer(ModeGraphs):
    """Vision transformer: patches of the image, transformer blocks, and two linear layers.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels, which determines the number of patches L.
    name
        Name of the network, for error messages.
    settings
        Numbers of channels and of blocks.
    embedding_size
        Number of dimensions E of the embedding.
    drop_path
        Probability that training skips the self-attention of the last block for an image, and
        likewise its perceptron. From block to block, the probability grows linearly, starting at 0
        for the first block.
    mask_ratio
        Fraction of the patches of an image that training removes.

    Inputs
    ------
    x : (B, 3, *image_size) float32
        B images with values of about -1 to 1.

    Outputs
    -------
    (B, E) float32
        Embeddings, not normalised to L2 norm 1.

    Notes
    -----
    Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv:2010.11929, section 3.1, without a
    class token. The patch size, ReLU6 instead of GELU, the masking of patches and the last layers
    are those of InsightFace's arcface_torch. Huang et al., "Deep Networks with Stochastic Depth",
    arXiv:1603.09382, explain ``drop_path``.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        name: str,
        settings: Settings,
        embedding_size: int,
        drop_path: float,
        mask_ratio: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        channels, depth = settings
        tokens = math.prod(side // PATCH_PIXELS for side in image_size)
        check_features(
            name,
            image_size,
            tokens * channels,
            channels,
            layer="linear layer after the blocks",
            source="images",
        )
        # By default, PyTorch draws the initial values of a convolution uniformly between -bound and
        # bound.
        bound = 1 / math.sqrt(3 * PATCH_PIXELS**2)
        with self.name_scope():
            self.patches = nn.Conv2D(
                channels,
                PATCH_PIXELS,
                strides=PATCH_PIXELS,
                in_channels=3,
                weight_initializer=init.Uniform(bound),
                bias_initializer=init.Uniform(bound),
            )
            self.position = self.params.get(
                "position", shape=(1, tokens, channels), init=init.Normal(WEIGHT_DEVIATION)
            )
            masks = count_kept(tokens, mask_ratio) < tokens
            self.mask = MaskedTokens(tokens, channels, mask_ratio) if masks else None
            self.blocks = nn.HybridSequential()
            for number in range(depth):
                skip = drop_path * number / max(depth - 1, 1)
                self.blocks.add(TransformerBlock(channels, HEADS, skip))
            self.norm = nn.LayerNorm(in_channels=channels, epsilon=LAYER_NORM_EPSILON)
            self.features = dense(tokens * channels, channels, bias=False)
            self.features_norm = _norm(channels)
            self.linear = dense(channels, embedding_size, bias=False)
            self.linear_norm = _norm(embedding_size)

    def hybrid_forward(self, F: Any, x: Any, position: Any) -> Any:
        x = F.transpose(F.reshape(self.patches(x), shape=(0, 0, -1)), axes=(0, 2, 1))  # (B, L, C)
        x = F.broadcast_add(x, position)
        if self.mask is not None and autograd.is_training():
            chosen = self.mask.draw(F, x)
            x = self.norm(self.blocks(F.linalg_gemm2(chosen, x)))
            x = self.mask(x, chosen)
        else:
            x = self.norm(self.blocks(x))
        # The batch normalisation gets the shape (B, C, 1, 1); `nets.embedding_layers` says why.
        for linear, norm in ((self.features, self.features_norm), (self.linear, self.linear_norm)):
            x = F.flatten(norm(F.reshape(linear(F.flatten(x)), shape=(0, -1, 1, 1))))
        return x

    def _build_cache(self, *args: Any) -> None:
        with warnings.catch_warnings():
            # The graph for inference lacks the learned token, and Gluon warns about that.
            warnings.filterwarnings("ignore", ".*is not used by any computation")
            super()._build_cache(*args)


def _norm(channels: int) -> nn.BatchNorm:
    return nn.BatchNorm(momentum=BN_MOMENTUM, epsilon=NORM_EPSILON, in_channels=channels)


def vision_transformer(name: str) -> Callable[..., VisionTransformer]:
    """Return a function that builds the vision transformer with a given name.

    Parameters
    ----------
    name
        A key of ``SETTINGS``.
    """
    sizes = SETTINGS[name]

    def build(
        image_size: tuple[int, int] = (112, 112),
        *,
        embedding_size: EmbeddingSize = TYPICAL_EMBEDDING_SIZE,
        depth: Depth = sizes.depth,
        drop_path: DropPath = 0.1,
        mask_ratio: MaskRatio = 0.1,
    ) -> VisionTransformer:
        return VisionTransformer(
            check_image_size(
                name, image_size, PATCH_PIXELS, reason=f"a patch has {PATCH_PIXELS} pixels per side"
            ),
            name=name,
            settings=sizes._replace(depth=depth),
            embedding_size=embedding_size,
            drop_path=drop_path,
            mask_ratio=mask_ratio,
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""Vision transformer with {sizes.channels} channels.

    Parameters
    ----------
    image_size
        (height, width) of the images in pixels.
    embedding_size
        Number of dimensions of the embedding.
    depth
        Number of transformer blocks.
    drop_path
        Probability that training skips the self-attention of the last block for an image, and
        likewise its perceptron. From block to block, the probability grows linearly, starting at 0
        for the first block.
    mask_ratio
        Fraction of the patches of an image that training removes.

    Raises
    ------
    ValueError
        If the images are too small, or if the last layer is too large for MXNet.

    Notes
    -----
    Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv:2010.11929, in the form of
    InsightFace's arcface_torch.
    """
    return build
