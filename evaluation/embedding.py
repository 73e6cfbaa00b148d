# SPDX-License-Identifier: Apache-2.0
"""Images to embeddings, each the sum over the image and its mirror."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mxnet as mx
import numpy as np

from evaluation.pairs import CutOff, Image, PairsError, decode_image, place


def embed(
    net: Callable[[mx.nd.NDArray], mx.nd.NDArray],
    images: Sequence[Image],
    image_size: tuple[int, int] = (112, 112),
    *,
    mean: float,
    std: float,
    batch_size: int = 64,
    ctx: mx.Context | None = None,
    part: tuple[int, int] = (0, 1),
    where: str = "images",
    strict: bool = True,
    cut_off: CutOff | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Embed images and their mirrors.

    Two batches at most are decoded at a time: one is prepared while the device works on the other.

    Parameters
    ----------
    net
        Image to embedding; run in inference mode. It sees one shape only: the last batch is filled
        up, so that a hybridized net is not traced again.
    images
        Encoded images or pixels, see `evaluation.pairs.decode_image`.
    image_size
        (height, width) in pixels.
    mean, std
        The net takes pixels x of 0 to 255 as (x - mean) / std.
    batch_size
        Images per forward pass.
    ctx
        Device of the net; None for the current one.
    part
        (rank, size): embed images rank, rank + size, and so on. Every rank gets equally many: one
        that runs out embeds the last image once more.
    where
        Beginning of error messages: the set.
    strict
        Whether an image that cannot be decoded raises. Otherwise its row is NaN: with several ranks
        all must notice, or those that did not wait for ever.
    cut_off
        See `evaluation.pairs.decode_image`.

    Outputs
    -------
    Sum of both raw embeddings, (n, E) float32, n = ceil(len(images) / size); mean length of the
    two, (n,) float32.

    Raises
    ------
    PairsError
        If there are no images, or one does not decode, is cut off or has another size.
    """
    rank, size = part
    if not len(images):
        raise PairsError(f"{where}: there is nothing to embed, got 0 images; hand over at least 1")
    if batch_size < 1 or not 0 <= rank < size:
        raise ValueError(
            f"embed: batch_size must be at least 1 and rank from 0 to size - 1, got {batch_size}, "
            f"rank {rank}, size {size}; correct the call"
        )
    ctx = ctx or mx.current_context()
    count = -(-len(images) // size)
    indices = [min(rank + size * i, len(images) - 1) for i in range(count)]
    sums: list[np.ndarray] = []
    norms: list[np.ndarray] = []

    def collect(ahead: tuple[mx.nd.NDArray, mx.nd.NDArray, np.ndarray]) -> None:
        straight, mirrored, good = ahead
        # Sync: the host waits for a batch, the next one being queued already.
        one, two = straight.asnumpy()[: len(good)], mirrored.asnumpy()[: len(good)]
        total = one + two
        total[~good] = np.nan
        sums.append(total)
        norms.append((np.linalg.norm(one, axis=1) + np.linalg.norm(two, axis=1)) / 2)

    waiting = None
    pixels = np.zeros((batch_size, *image_size, 3), dtype=np.uint8)
    with mx.autograd.pause(train_mode=False):
        for start in range(0, count, batch_size):
            chosen = indices[start : start + batch_size]
            good = np.ones(len(chosen), dtype=bool)
            for row, index in enumerate(chosen):
                try:
                    pixels[row] = decode_image(
                        images[index], image_size, f"{where}: {place(index)}", cut_off
                    )
                except PairsError:
                    if strict:
                        raise
                    pixels[row], good[row] = 0, False
            # Bytes go to the device and become floats there: a quarter of the transfer. The array
            # is a copy, so that `pixels` may be filled again at once.
            batch = mx.nd.array(pixels, ctx=ctx, dtype="uint8").astype("float32")  # (B, H, W, 3)
            batch = (batch.transpose((0, 3, 1, 2)) - mean) / std  # (B, 3, H, W)
            queued = net(batch), net(mx.nd.flip(batch, axis=3)), good
            if waiting is not None:
                collect(waiting)
            waiting = queued
        if waiting is not None:
            collect(waiting)
    return np.concatenate(sums), np.concatenate(norms)
