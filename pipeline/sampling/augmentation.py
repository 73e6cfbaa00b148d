# SPDX-License-Identifier: Apache-2.0
"""Random augmentation: mirror, JPEG compression, colour jitter and cut-out as InsightFace has them;
shift and grey for small sets.

Each parameter is a function of (seed, epoch, id of the image), so loaders, readers, numbers of
ranks and resumed runs agree.  The decoders apply them in the order JPEG compression, colours,
shift, cut-out, mirror, between decoding and normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.sampling.epoch_orders import uniform

# Weights of R, G and B in the brightness of a pixel (ITU-R BT.601).
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
CUT_OUT_VALUE = 128  # pixel value of the cut-out square and of the border that a shift leaves

# Each parameter has its own random stream, so switching one on does not change the others.
_MIRROR, _BRIGHTNESS, _CONTRAST, _SATURATION, _JPEG, _QUALITY, _CUT_OUT, _TOP, _LEFT = range(9)
_DOWN, _RIGHT, _GREY = range(9, 12)


@dataclass(frozen=True)
class Augmentation:
    """Settings of the random changes of the images; fractions are probabilities per image."""

    mirror: bool = True  # mirror half of the images
    color_jitter: float = 0.0  # largest relative change of brightness, contrast and saturation each
    jpeg_quality: tuple[int, int] | None = None  # range, in 1..100, of a second JPEG compression
    jpeg_probability: float = 0.5  # fraction of the images that are compressed again
    cut_out: int = 0  # side in pixels of a grey square over the image
    cut_out_probability: float = 0.5  # fraction of the images with a square
    shift: int = 0  # largest number of pixels by which an image moves vertically and horizontally
    grey: float = 0.0  # fraction of the images that become grey

    @property
    def colors(self) -> bool:
        """Return whether the settings change colours."""
        return bool(self.color_jitter or self.grey)

    @property
    def changes_pixels(self) -> bool:
        """Return whether the settings do anything besides mirroring."""
        return bool(self.colors or self.jpeg_quality or self.shift or self.cut_out)


NO_AUGMENTATION = Augmentation(mirror=False)


class AugmentParams(NamedTuple):
    """Random changes of each of B images, or of one image (without the leading axis)."""

    mirror: np.ndarray  # (B,) bool
    # (B, 3) float32, factors of brightness, contrast and saturation; 1 changes nothing, and a
    # saturation of 0 makes the image grey.
    color: np.ndarray
    quality: np.ndarray  # (B,) int32, JPEG quality; 0: no compression
    cut_out: (
        np.ndarray
    )  # (B, 4) int32, top, left, height, width in pixels before mirroring; 0: none
    shift: np.ndarray  # (B, 2) int32, pixels down and right, before mirroring

    def each(self) -> Iterator[AugmentParams]:
        """Yield the parameters of each image."""
        return (AugmentParams(*one) for one in zip(*self, strict=True))


def choose_params(
    augmentation: Augmentation,
    ids: np.ndarray,
    seed: int,
    epoch: int,
    image_size: tuple[int, int],
) -> AugmentParams:
    """Return the random changes of some images in an epoch.

    Parameters
    ----------
    ids
        (B,) int64, a number per image.
    image_size
        (height, width) in pixels.

    Notes
    -----
    The distributions are those of InsightFace's image iterator with ``data_color`` 1
    (``color_jitter`` 0.125), above 1 (``jpeg_quality`` 2 to 20 on every other image) and
    ``data_cutoff``.  The square's centre is uniform over the image, and the part of the square
    beyond the image is lost, as in DeVries and Taylor, "Improved regularization of convolutional
    neural networks with Cutout", arXiv:1708.04552.
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
    """Return M and K, float32 (B, 3, 3), of a colour jitter ``M x + K mean(x)`` on RGB pixels x.

    Saturation s blends a pixel with its brightness ``g = LUMA . x``: ``s x + (1 - s) g``.  Contrast
    c blends it with the image's mean brightness: ``c x + (1 - c) mean(g)``.  Brightness multiplies.
    All three are linear, and only the brightness factor changes the mean brightness; so their
    order, which MXNet's ColorJitterAug draws, does not matter.  As there, values below 0 and above
    255 are not clipped.
    """
    brightness, contrast, saturation = color.T[:, :, None, None].astype(np.float32)
    grey = np.broadcast_to(LUMA, (3, 3))  # maps x to g in every channel
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * grey)
    return matrix.astype(np.float32), (brightness * (1 - contrast) * grey).astype(np.float32)
