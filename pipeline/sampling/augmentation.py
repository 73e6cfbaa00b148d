# SPDX-License-Identifier: Apache-2.0
"""Choose random augmentations: mirror, JPEG compression, colour jitter, cut-out, shift, grey.

Mirror, JPEG compression, colour jitter and cut-out follow InsightFace.  Shift and grey are
additions for small training sets.

Each random parameter is a function of (seed, epoch, image id).  So an image gets the same
augmentation from every loader and reader, with any number of ranks, and in a resumed run.  The
decoders apply JPEG compression, then colour jitter and grey in one step, then shift, cut-out and
mirror, between decoding and normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.sampling.epoch_orders import uniform

# Weights of R, G and B in the brightness of a pixel (ITU-R BT.601).
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
CUT_OUT_VALUE = 128  # pixel value in the cut-out square and in the border that a shift uncovers

# Number of the random stream of each parameter.  Streams are independent, so enabling one kind of
# augmentation does not change the random numbers of another kind.
_MIRROR, _BRIGHTNESS, _CONTRAST, _SATURATION, _JPEG, _QUALITY, _CUT_OUT, _TOP, _LEFT = range(9)
_DOWN, _RIGHT, _GREY = range(9, 12)


@dataclass(frozen=True)
class Augmentation:
    """Settings of the random augmentation of the images.

    Where a setting is a fraction of the images, each image is changed with that probability.
    """

    mirror: bool = True  # whether half of the images are mirrored left to right
    # Largest relative change of the brightness, the contrast and the saturation, each.
    color_jitter: float = 0.0
    jpeg_quality: tuple[int, int] | None = None  # quality range (1..100) of a recompression
    jpeg_probability: float = 0.5  # fraction of the images that are compressed again
    cut_out: int = 0  # side in pixels of a grey square that covers part of the image
    cut_out_probability: float = 0.5  # fraction of the images that get the grey square
    shift: int = 0  # largest number of pixels by which an image moves in each direction
    grey: float = 0.0  # fraction of the images that become grey

    @property
    def colors(self) -> bool:
        """Return whether the settings change the colours of images."""
        return bool(self.color_jitter or self.grey)

    @property
    def changes_pixels(self) -> bool:
        """Return whether the settings do anything besides mirroring."""
        return bool(self.colors or self.jpeg_quality or self.shift or self.cut_out)


NO_AUGMENTATION = Augmentation(mirror=False)


class AugmentParams(NamedTuple):
    """Parameters of the augmentation of B images, or of one image without the leading axis B."""

    mirror: np.ndarray  # (B,) bool: whether to mirror the image left to right
    # (B, 3) float32: factors of brightness, contrast and saturation.  A factor of 1 changes
    # nothing, and a saturation factor of 0 makes the image grey.
    color: np.ndarray
    quality: np.ndarray  # (B,) int32: JPEG quality of the recompression; 0: no recompression
    # (B, 4) int32: top, left, height and width of the cut-out square in pixels, before mirroring.
    # A height of 0 means no square.
    cut_out: np.ndarray
    shift: np.ndarray  # (B, 2) int32: shift down and shift right in pixels, before mirroring

    def each(self) -> Iterator[AugmentParams]:
        """Yield the parameters of each image as an ``AugmentParams`` of one image."""
        return (AugmentParams(*one) for one in zip(*self, strict=True))


def choose_params(
    augmentation: Augmentation,
    ids: np.ndarray,
    seed: int,
    epoch: int,
    image_size: tuple[int, int],
) -> AugmentParams:
    """Choose the augmentation of B images in an epoch at random.

    Parameters
    ----------
    ids
        Unique numbers of the images (``RecordSet.ids``), int64 (B,).
    image_size
        (height, width) in pixels.

    Notes
    -----
    The distributions are those of InsightFace's image iterator.  Its ``data_color`` 1 corresponds
    to ``color_jitter`` 0.125.  A ``data_color`` above 1 corresponds to a ``jpeg_quality`` from 2 to
    20 on half of the images, and ``data_cutoff`` corresponds to ``cut_out``.  The centre of the
    cut-out square is uniform over the image, and the part of the square outside the image is
    clipped, as in DeVries and Taylor, "Improved regularization of convolutional neural networks
    with Cutout", arXiv:1708.04552.
    """
    count = len(ids)

    def draw(stream: int) -> np.ndarray:
        return uniform(ids, seed, epoch, stream)

    color = np.ones((count, 3), dtype=np.float32)
    if augmentation.color_jitter:
        for column, stream in enumerate((_BRIGHTNESS, _CONTRAST, _SATURATION)):
            color[:, column] = 1 + augmentation.color_jitter * (2 * draw(stream) - 1)
    if augmentation.grey:
        color[draw(_GREY) < augmentation.grey, 2] = 0
    quality = np.zeros(count, dtype=np.int32)
    if augmentation.jpeg_quality:
        low, high = augmentation.jpeg_quality
        chosen = draw(_JPEG) < augmentation.jpeg_probability
        quality[chosen] = (low + draw(_QUALITY) * (high - low + 1)).astype(np.int32)[chosen]
    cut_out = np.zeros((count, 4), dtype=np.int32)
    if augmentation.cut_out:
        size = np.array(image_size)
        centre = (np.stack([draw(_TOP), draw(_LEFT)], axis=1) * size).astype(np.int32)
        begin = np.maximum(0, centre - augmentation.cut_out // 2)
        end = np.minimum(size, centre - augmentation.cut_out // 2 + augmentation.cut_out)
        chosen = draw(_CUT_OUT) < augmentation.cut_out_probability
        cut_out[chosen] = np.concatenate([begin, end - begin], axis=1)[chosen]
    mirror = draw(_MIRROR) >= 0.5 if augmentation.mirror else np.zeros(count, dtype=bool)
    shift = np.zeros((count, 2), dtype=np.int32)
    if augmentation.shift:
        reach = augmentation.shift
        for column, stream in enumerate((_DOWN, _RIGHT)):
            shift[:, column] = (draw(stream) * (2 * reach + 1)).astype(np.int32) - reach
    return AugmentParams(mirror, color, quality, cut_out, shift)


def color_matrices(color: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return M and K, float32 (B, 3, 3), of the colour jitter ``M x + K mean(x)`` on RGB pixels x.

    The brightness of a pixel is ``g = LUMA . x``.  A saturation factor s blends a pixel with its
    brightness: ``s x + (1 - s) g``.  A contrast factor c blends a pixel with the mean brightness of
    the image: ``c x + (1 - c) mean(g)``.  A brightness factor multiplies the pixel.

    All three changes are linear, and only the brightness factor changes the mean brightness.  So
    their order does not matter, although MXNet's ColorJitterAug draws the order at random.  Like
    ColorJitterAug, the colour jitter does not clip values below 0 or above 255.
    """
    brightness, contrast, saturation = color.T[:, :, None, None].astype(np.float32)
    grey = np.broadcast_to(LUMA, (3, 3))  # `grey @ x` is the brightness g in all channels
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * grey)
    return matrix.astype(np.float32), (brightness * (1 - contrast) * grey).astype(np.float32)
