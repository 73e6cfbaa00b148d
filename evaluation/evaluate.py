# SPDX-License-Identifier: Apache-2.0
"""Score a network on verification sets, with one rank or several ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.distinct import find_distinct
from evaluation.embedding import FlippedEmbeddings, embed_flipped
from evaluation.pairs import CutOff, Pairs, decode_image, find_sets, name_image
from evaluation.verification import verify

if TYPE_CHECKING:
    import mxnet as mx

__all__ = ["evaluate_sets", "find_sets"]

Gather = Callable[[np.ndarray], np.ndarray]
Progress = Callable[[str, int, int], None]
"""Function that receives the name of a set, the number of embedded images and that of all images.

Both numbers count the distinct images of the set that this process embeds.
"""


def evaluate_sets(
    net: Callable[[mx.nd.NDArray], mx.nd.NDArray],
    sets: Mapping[str, Pairs],
    *,
    mean: float,
    std: float,
    batch_size: int = 64,
    ctx: mx.Context | None = None,
    image_size: tuple[int, int] = (112, 112),
    rank: int = 0,
    size: int = 1,
    gather: Gather | None = None,
    cut_off: CutOff | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Embed and score verification sets; each rank embeds a part of the images.

    The parameters are those of `embed_sets`.

    Outputs
    -------
    Dict from the name of each set to the result of `evaluation.verification.verify` for
    `FlippedEmbeddings.sums`.  All ranks return the results of all sets.

    Raises
    ------
    PairsError
        See `embed_sets`.
    ValueError
        If an embedding is zero or not finite, or a set has fewer pairs than folds.
    """
    embedded = embed_sets(
        net,
        sets,
        mean=mean,
        std=std,
        batch_size=batch_size,
        ctx=ctx,
        image_size=image_size,
        rank=rank,
        size=size,
        gather=gather,
        cut_off=cut_off,
        progress=progress,
    )
    results = {}
    for name, found in embedded:
        try:
            results[name] = verify(found.sums, sets[name].issame, norms=found.norms)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return results


def embed_sets(
    net: Callable[[mx.nd.NDArray], mx.nd.NDArray],
    sets: Mapping[str, Pairs],
    *,
    mean: float,
    std: float,
    batch_size: int = 64,
    ctx: mx.Context | None = None,
    image_size: tuple[int, int] = (112, 112),
    rank: int = 0,
    size: int = 1,
    gather: Gather | None = None,
    cut_off: CutOff | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[str, FlippedEmbeddings]]:
    """Embed the images of verification sets, set by set; each rank embeds a part of the images.

    An image that is in several pairs of a set is embedded only once.  All ranks get the embeddings
    of all images.

    Parameters
    ----------
    net
        Network from images to embeddings, with the same parameters on all ranks.
    sets
        Sets by name; all ranks pass the same sets in the same order.
    mean, std
        The input of the net is (x - mean) / std for pixels x from 0 to 255.
    batch_size
        Images per forward pass on one rank.
    ctx
        Device of the net; None for MXNet's current context.
    image_size
        Required (height, width) of the images in pixels.
    rank, size
        Rank of this process and number of ranks.  Rank i % size embeds distinct image i of a set.
    gather
        Allgather over the ranks: a function from the float32 array (n, columns) of this rank to the
        concatenated arrays of all ranks, (size * n, columns), rank 0 first.  None for one rank.
    cut_off
        Function that detects truncated images, see `evaluation.pairs.CutOff`; None skips the check.
        Either all ranks pass a function, or all ranks pass None.
    progress
        Function that is called after each batch, see `Progress`; None for no calls.

    Outputs
    -------
    For each set of P pairs: the name of the set, and the embeddings (2 P, E) of its images.

    Raises
    ------
    PairsError
        If an image does not decode, is truncated or is not of the size ``image_size``.  All ranks
        raise the same error.
    """
    if size > 1 and gather is None:
        raise ValueError(
            f"embed_sets: {size} ranks need a function that gathers the embeddings of all "
            "ranks, got gather=None; pass gather"
        )
    for name, pairs in sets.items():
        first, numbers = find_distinct(pairs.images)
        # Horovod: if one rank raised an error here, the other ranks would wait for it in `gather`.
        # So with several ranks `embed_flipped` returns a row of NaN for a bad image instead.
        found = embed_flipped(
            net,
            pairs.images,
            image_size,
            mean=mean,
            std=std,
            batch_size=batch_size,
            ctx=ctx,
            chosen=first,
            part=(rank, size),
            where=pairs.path,
            strict=gather is None,
            cut_off=cut_off,
            progress=partial(progress, name) if progress else None,
        )
        rows = np.concatenate(found, axis=1)  # (n, 2 E)
        if gather is not None:
            n, columns = rows.shape
            rows = np.asarray(gather(rows)).reshape(size, n, columns)
            rows = rows.transpose(1, 0, 2).reshape(size * n, columns)
        rows = rows[: len(first)]
        for number in np.flatnonzero(~np.isfinite(rows).all(axis=1)):
            # Decode the image again; this raises an error for a bad image.  Every rank holds all
            # encoded images, so all ranks raise the same error here.  If the image is good, the net
            # has returned a value that is not finite, which `verify` refuses later.
            where = f"{pairs.path}: {name_image(first[number])}"
            decode_image(pairs.images[first[number]], image_size, where, cut_off)
        rows = rows[numbers]  # (2 P, 2 E)
        yield name, FlippedEmbeddings(*np.split(rows, 2, axis=1))
