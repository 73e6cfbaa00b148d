# SPDX-License-Identifier: Apache-2.0
"""Compute the embeddings of images and of their mirror images, and the sum for each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mxnet as mx
import numpy as np

from evaluation.pairs import CutOff, Image, PairsError, decode_image, name_image


class FlippedEmbeddings(NamedTuple):
    """Raw embeddings of n images, ``plain``, and of their mirror images, ``mirrored``.

    Both are (n, E) float32.
    """

    plain: np.ndarray
    mirrored: np.ndarray

    @property
    def sums(self) -> np.ndarray:
        """Sum of the embeddings of each image and its mirror image, (n, E)."""
        return self.plain + self.mirrored

    @property
    def norms(self) -> np.ndarray:
        """Mean of the L2 norms of the embeddings of each image and its mirror image, (n,)."""
        both = np.linalg.norm(self.plain, axis=1) + np.linalg.norm(self.mirrored, axis=1)
        return both / 2


def embed(
    net: Callable[[mx.nd.NDArray], mx.nd.NDArray],
    images: Sequence[Image],
    image_size: tuple[int, int] = (112, 112),
    *,
    mean: float,
    std: float,
    batch_size: int = 64,
    ctx: mx.Context | None = None,
    chosen: Sequence[int] | None = None,
    part: tuple[int, int] = (0, 1),
    where: str = "images",
    strict: bool = True,
    cut_off: CutOff | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Embed each image and its mirror image; return the sums of the two embeddings, and norms.

    The parameters and errors are those of `embed_flipped`.

    Outputs
    -------
    ``sums`` (n, E) and ``norms`` (n,) of `FlippedEmbeddings`, float32.
    """
    found = embed_flipped(
        net,
        images,
        image_size,
        mean=mean,
        std=std,
        batch_size=batch_size,
        ctx=ctx,
        chosen=chosen,
        part=part,
        where=where,
        strict=strict,
        cut_off=cut_off,
        progress=progress,
    )
    return found.sums, found.norms


def embed_flipped(
    net: Callable[[mx.nd.NDArray], mx.nd.NDArray],
    images: Sequence[Image],
    image_size: tuple[int, int] = (112, 112),
    *,
    mean: float,
    std: float,
    batch_size: int = 64,
    ctx: mx.Context | None = None,
    chosen: Sequence[int] | None = None,
    part: tuple[int, int] = (0, 1),
    where: str = "images",
    strict: bool = True,
    cut_off: CutOff | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FlippedEmbeddings:
    """Embed each image and its mirror image.

    The host decodes a batch while the device computes the previous batch.

    Parameters
    ----------
    net
        Network from images (B, 3, H, W) to embeddings (B, E), run in inference mode.  The last
        batch is padded to B images, so that MXNet traces a hybridized net only once.
    images
        Encoded images, or RGB pixels; for the types see `evaluation.pairs.Pairs`.
    image_size
        Required (height, width) of the images in pixels.
    mean, std
        The input of the net is (x - mean) / std for pixels x from 0 to 255.
    batch_size
        Images per forward pass.
    ctx
        Device of the net; None for MXNet's current context.
    chosen
        Indices of the images to embed; None for all images.  Error messages name an image by its
        index in ``images``.
    part
        Rank of this process and number of ranks, as a pair (rank, size).  The process embeds every
        ``size``-th image of ``chosen``, beginning with ``chosen[rank]``.  Every rank embeds the
        same number of images: a rank with one image fewer embeds the last chosen image again.
    where
        Prefix of error messages, for example the file of the set.
    strict
        True: raise PairsError for an image that does not decode.  False: set the image's
        row of the result to NaN, so that a rank with a bad image still takes part in the next
        collective operation.
    cut_off
        Function that detects truncated images, see `evaluation.pairs.CutOff`; None skips the check.
    progress
        Function that is called after each batch with two arguments: how many images this
        rank has embedded so far, and the number n of all images of this rank.  None for no calls.

    Outputs
    -------
    One row for each of the n images of this rank; n is the number of chosen images divided by
    ``size``, rounded up.

    Raises
    ------
    PairsError
        If there are no images, or if an image does not decode, is truncated or has another size
        than ``image_size``.
    """
    rank, size = part
    if not len(images):
        raise PairsError(
            f"{where}: there are no images to embed, got 0 images; pass at least 1 image"
        )
    if batch_size < 1 or not 0 <= rank < size:
        raise ValueError(
            "embed: batch_size must be at least 1 and rank must be from 0 to size - 1, got "
            f"batch_size {batch_size}, rank {rank}, size {size}; correct these arguments"
        )
    ctx = ctx or mx.current_context()
    chosen = range(len(images)) if chosen is None else chosen
    count = -(-len(chosen) // size)
    indices = [chosen[min(rank + size * i, len(chosen) - 1)] for i in range(count)]
    plain: list[np.ndarray] = []
    mirrored: list[np.ndarray] = []

    def collect(batch_outputs: tuple[mx.nd.NDArray, mx.nd.NDArray, np.ndarray]) -> None:
        one, two, good = batch_outputs
        # Sync: the host waits for this batch; the device already has the next batch in its queue.
        for outputs, rows in ((one, plain), (two, mirrored)):
            rows.append(outputs.asnumpy()[: len(good)])
            rows[-1][~good] = np.nan
        if progress is not None:
            progress(min(batch_size * len(plain), count), count)

    waiting = None
    pixels = np.zeros((batch_size, *image_size, 3), dtype=np.uint8)
    with mx.autograd.pause(train_mode=False):
        for start in range(0, count, batch_size):
            batch_indices = indices[start : start + batch_size]
            good = _decode_batch(
                images, batch_indices, pixels, where=where, strict=strict, cut_off=cut_off
            )
            # uint8 pixels have a quarter of the bytes of float32 pixels, so convert on the device,
            # after the transfer.  mx.nd.array copies `pixels`, so the next batch may overwrite
            # `pixels`.
            batch = mx.nd.array(pixels, ctx=ctx, dtype="uint8").astype("float32")  # (B, H, W, 3)
            batch = (batch.transpose((0, 3, 1, 2)) - mean) / std  # (B, 3, H, W)
            queued = net(batch), net(mx.nd.flip(batch, axis=3)), good
            if waiting is not None:
                collect(waiting)
            waiting = queued
        if waiting is not None:
            collect(waiting)
    return FlippedEmbeddings(np.concatenate(plain), np.concatenate(mirrored))


def _decode_batch(
    images: Sequence[Image],
    indices: Sequence[int],
    pixels: np.ndarray,
    *,
    where: str,
    strict: bool,
    cut_off: CutOff | None,
) -> np.ndarray:
    """Decode the images with these indices into the first rows of ``pixels``, (B, H, W, 3) uint8.

    Return a bool array (len(indices),) that is False for each image that cannot be decoded.  The
    pixels of such an image are 0.  The other parameters are those of `embed_flipped`.
    """
    good = np.ones(len(indices), dtype=bool)
    image_size = (pixels.shape[1], pixels.shape[2])
    for row, index in enumerate(indices):
        try:
            pixels[row] = decode_image(
                images[index], image_size, f"{where}: {name_image(index)}", cut_off
            )
        except PairsError:
            if strict:
                raise
            pixels[row], good[row] = 0, False
    return good
