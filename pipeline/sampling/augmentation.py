# SPDX-License-Identifier: Apache-2.0
"""How each image is augmented: mirror, JPEG quality, colour jitter, cut-out, as in InsightFace;
shift and grey, for small sets.

Every parameter is a function of (seed, epoch, id of the image), so that loaders, readers, numbers
of ranks and resumed runs agree.  The decoders apply them in this order: decode, second JPEG
compression, colours, shift, cut-out, mirror, normalise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.sampling.epoch_orders import uniform

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of R, G, B in the brightness of a pixel (ITU-R BT.601)."""
CUT_OUT_VALUE = 128
"""Of the square, and of what a shift leaves empty."""

# Every parameter has its own random stream, so that switching one on does not change the others.
# Mirror has stream 0.
_MIRROR, _BRIGHTNESS, _CONTRAST, _SATURATION, _JPEG, _QUALITY, _CUT_OUT, _TOP, _LEFT = range(9)
_DOWN, _RIGHT, _GREY = range(9, 12)


@dataclass(frozen=True)
class Augmentation:
    """What is done to the images of a run.

    Parameters
    ----------
    mirror
        Mirror with probability one half.
    color_jitter
        Largest relative change of brightness, contrast and saturation each; 0 for none.
    jpeg_quality
        Lowest and highest quality (1 to 100) of a second JPEG compression; None for none.
    jpeg_probability
        Share of the images that it is done to.
    cut_out
        Side in pixels of a grey square laid over the image; 0 for none.
    cut_out_probability
        Share of the images that get one.
    shift
        Most pixels by which an image is moved down or up, and right or left; 0 for none.
    grey
        Share of the images that lose their colours.
    """

    mirror: bool = True
    color_jitter: float = 0.0
    jpeg_quality: tuple[int, int] | None = None
    jpeg_probability: float = 0.5
    cut_out: int = 0
    cut_out_probability: float = 0.5
    shift: int = 0
    grey: float = 0.0

    @property
    def colors(self) -> bool:
        """Return whether any colour is changed."""
        return bool(self.color_jitter or self.grey)

    @property
    def changes_pixels(self) -> bool:
        """Return whether anything but mirroring is done."""
        return bool(self.colors or self.jpeg_quality or self.shift or self.cut_out)


NO_AUGMENTATION = Augmentation(mirror=False)


class AugmentParams(NamedTuple):
    """What is done to each of B images, or to one (then without the leading axis)."""

    mirror: np.ndarray
    """(B,) bool."""
    color: np.ndarray
    """(B, 3) float32: factors of brightness, contrast, saturation; 1 leaves as it is, a saturation
    of 0 makes grey."""
    quality: np.ndarray
    """(B,) int32: JPEG quality; 0 leaves as it is."""
    cut_out: np.ndarray
    """(B, 4) int32: top, left, height, width in pixels before mirroring; 0 x 0 for none."""
    shift: np.ndarray
    """(B, 2) int32: pixels down and right, before mirroring."""

    def each(self) -> Iterator[AugmentParams]:
        """Yield the parameters of one image after the other."""
        return (AugmentParams(*one) for one in zip(*self, strict=True))


def choose_params(
    augmentation: Augmentation,
    ids: np.ndarray,
    seed: int,
    epoch: int,
    image_size: tuple[int, int],
) -> AugmentParams:
    """Return what is done to some images in an epoch.

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
    ``data_cutoff``.  The square's centre is uniform over the image and what lies beyond its edge
    is lost, as in DeVries and Taylor, "Improved regularization of convolutional neural networks
    with Cutout", arXiv:1708.04552.
    """
    count = len(ids)

    def draw(stream: int) -> np.ndarray:
        return uniform(ids, seed, epoch, stream)

    color = np.ones((count, 3), dtype=np.float32)
    if augmentation.color_jitter:
        for place, stream in enumerate((_BRIGHTNESS, _CONTRAST, _SATURATION)):
            color[:, place] = 1 + augmentation.color_jitter * (2 * draw(stream) - 1)
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
        for place, stream in enumerate((_DOWN, _RIGHT)):
            shift[:, place] = (draw(stream) * (2 * reach + 1)).astype(np.int32) - reach
    return AugmentParams(mirror, color, quality, cut_out, shift)


def color_matrices(color: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return M and K, float32 (B, 3, 3), of a colour jitter ``M x + K mean(x)`` on RGB pixels x.

    Saturation s moves a pixel from its brightness ``g = LUMA . x``: ``s x + (1 - s) g``; contrast
    c moves it from the image's mean brightness: ``c x + (1 - c) mean(g)``; brightness multiplies.
    All three are linear and keep the mean brightness apart from the factor of brightness, so their
    order, which MXNet's ColorJitterAug draws, makes no difference.  Nothing is cut off at 0 or
    255, as there.
    """
    brightness, contrast, saturation = color.T[:, :, None, None].astype(np.float32)
    grey = np.broadcast_to(LUMA, (3, 3))  # every row: x -> g
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * grey)
    return matrix.astype(np.float32), (brightness * (1 - contrast) * grey).astype(np.float32)
