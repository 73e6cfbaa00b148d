# SPDX-License-Identifier: Apache-2.0
"""The pixels of a decode mode and an augmentation, and how far they are from those of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.decode.dali import STD, DecodeGraph
from pipeline.sampling.augmentation import Augmentation, choose_params

if TYPE_CHECKING:
    from ops.feed import LoaderKernels

THREADS = 2
AUGMENTATIONS = {
    "mirror": Augmentation(),
    "colours": Augmentation(color_jitter=0.125, grey=0.2),
    "JPEG again": Augmentation(jpeg_quality=(20, 60), jpeg_probability=0.5),
    "cut-out": Augmentation(cut_out=32),
    "shift": Augmentation(shift=8),
    "all": Augmentation(color_jitter=0.125, grey=0.2, jpeg_quality=(20, 60), cut_out=32, shift=8),
}
MOST_MEAN = 2.0
"""Difference of pixels, of 255, up to which decoders agree: they round planes of colour
differently."""


class Difference(NamedTuple):
    """How far two batches of pixels are apart, in units of 255."""

    mean: float
    largest: float

    @property
    def small(self) -> bool:
        """Whether the decoders agree."""
        return self.mean <= MOST_MEAN


def pixels(
    jpegs: list[np.ndarray],
    mode: str,
    augmentation: Augmentation,
    device_id: int | None,
    feed: LoaderKernels | None,
) -> np.ndarray:
    """Return normalised images, float32 (B, 3, H, W), as a loader with this decode mode has them.

    Parameters
    ----------
    jpegs
        Encoded images of one size.
    mode
        Name in ``pipeline.decode.dali.PATHS``.
    augmentation
        What is done to them.
    device_id
        GPU on which the batch ends; None for the memory of the CPU.
    feed
        The compiled functions, for the mode "native".

    Raises
    ------
    RuntimeError
        If they cannot be decoded in this way here.
    """
    size = image_size(jpegs[0])
    params = choose_params(augmentation, np.arange(len(jpegs)), 3, 0, size)
    source = "pixels" if mode == "native" else "jpeg"
    images: list[np.ndarray] | np.ndarray = jpegs
    if mode == "native":
        images = native_pixels(jpegs, size, feed)
    graph = DecodeGraph(len(jpegs), mode, THREADS, 1, device_id, augmentation, source)
    graph.feed(images, params)
    taken = graph.take()
    if hasattr(taken, "as_cpu"):
        taken = taken.as_cpu()
    found = np.array(taken.as_tensor())
    graph.release()
    return found


def native_pixels(
    jpegs: list[np.ndarray], size: tuple[int, int], feed: LoaderKernels | None
) -> np.ndarray:
    """Return the pixels of the compiled decoder, uint8 (B, H, W, 3)."""
    if feed is None:
        raise RuntimeError("there are no compiled functions")
    addresses = np.array([jpeg.ctypes.data for jpeg in jpegs])
    sizes, out = np.array([jpeg.size for jpeg in jpegs]), np.empty((len(jpegs), *size, 3), np.uint8)
    decoder = feed.decoder(THREADS)
    try:
        started = decoder.to_pixels(addresses, sizes, size, out, source=jpegs)
        left = decoder.wait(started)
    finally:
        decoder.close()
    if len(left):
        raise RuntimeError(f"{len(left)} of {len(jpegs)} images are none for the compiled decoder")
    return out


def image_size(jpeg: np.ndarray) -> tuple[int, int]:
    """Return (height, width) of an encoded image in pixels."""
    import cv2

    return cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape[:2]


def difference(a: np.ndarray, b: np.ndarray) -> Difference:
    """Return how far normalised images (B, 3, H, W) are apart."""
    apart = np.abs(a.astype(np.float64) - b) * STD
    return Difference(round(float(apart.mean()), 3), round(float(apart.max()), 1))
