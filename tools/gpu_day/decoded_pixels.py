# SPDX-License-Identifier: Apache-2.0
"""Decode and augment images with one decode mode, and compare pixels between decode modes."""

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
MAX_MEAN_DIFFERENCE = 2.0
"""Tolerated mean difference of pixel values (0 to 255).

Decoders round chroma differently, so small differences are no faults.
"""


class Difference(NamedTuple):
    """Mean and largest difference between the pixels of two batches, in grey levels (0 to 255)."""

    mean: float
    largest: float

    @property
    def small(self) -> bool:
        """Return whether the mean difference is at most MAX_MEAN_DIFFERENCE."""
        return self.mean <= MAX_MEAN_DIFFERENCE


def pixels(
    jpegs: list[np.ndarray],
    mode: str,
    augmentation: Augmentation,
    device_id: int | None,
    feed: LoaderKernels | None,
) -> np.ndarray:
    """Decode, augment and normalise a batch of images as the loader does.

    Parameters
    ----------
    jpegs
        Encoded images, all of the same size in pixels.
    mode
        Decode mode, a name in ``pipeline.decode.dali.PATHS``.
    augmentation
        Augmentation of the images.
    device_id
        Number of the GPU that receives the pixels; None for the CPU.
    feed
        Compiled functions of the loader, required by the mode "native".

    Outputs
    -------
    Normalised pixels, (B, 3, H, W) float32, for B images of H x W pixels.

    Raises
    ------
    RuntimeError
        If the decode mode is not available on this machine, or if the native decoder does not
        support an image.
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
    """Decode B images of H x W pixels with the native decoder; return uint8 (B, H, W, 3)."""
    if feed is None:
        raise RuntimeError("the native decoder is not compiled")
    addresses = np.array([jpeg.ctypes.data for jpeg in jpegs])
    sizes, out = np.array([jpeg.size for jpeg in jpegs]), np.empty((len(jpegs), *size, 3), np.uint8)
    decoder = feed.decoder(THREADS)
    try:
        started = decoder.to_pixels(addresses, sizes, size, out, source=jpegs)
        unsupported = decoder.wait(started)
    finally:
        decoder.close()
    if len(unsupported):
        raise RuntimeError(
            f"the native decoder does not support {len(unsupported)} of the {len(jpegs)} images"
        )
    return out


def image_size(jpeg: np.ndarray) -> tuple[int, int]:
    """Return the height and the width of an encoded image in pixels."""
    import cv2

    height, width, _ = cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape
    return height, width


def difference(a: np.ndarray, b: np.ndarray) -> Difference:
    """Return the difference between two batches of normalised images of equal shape."""
    differences = np.abs(a.astype(np.float64) - b) * STD
    return Difference(round(float(differences.mean()), 3), round(float(differences.max()), 1))
