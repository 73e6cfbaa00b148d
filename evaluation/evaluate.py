# SPDX-License-Identifier: Apache-2.0
"""Score a network on verification sets, on one rank or on several together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.embedding import embed
from evaluation.pairs import CutOff, Pairs, decode_image, find_sets, place
from evaluation.verification import verify

if TYPE_CHECKING:
    import mxnet as mx

__all__ = ["evaluate_sets", "find_sets"]

Gather = Callable[[np.ndarray], np.ndarray]


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
) -> dict[str, dict[str, Any]]:
    """Embed and score every set; ranks share the images and all return the same.

    Parameters
    ----------
    net
        Image to embedding, equal on all ranks.
    sets
        Sets by name, the same on all ranks and in the same order.
    mean, std
        The net takes pixels x of 0 to 255 as (x - mean) / std.
    batch_size
        Images per forward pass on one rank.
    ctx
        Device of the net; None for the current one.
    image_size
        (height, width) in pixels.
    rank, size
        This process among all; image i is embedded by rank i % size.
    gather
        Takes (n, E) float32 of every rank, equally large, and returns (size * n, E), rank by rank.
        None where there is one rank.
    cut_off
        See `evaluation.pairs.decode_image`; on all ranks or on none.

    Outputs
    -------
    Metrics of `evaluation.verification.verify` by name of the set.

    Raises
    ------
    PairsError
        If an image does not decode, is cut off or has another size: on every rank, with one
        sentence.
    ValueError
        If an embedding is zero or not finite, or a set has fewer pairs than folds.
    """
    if size > 1 and gather is None:
        raise ValueError(
            f"evaluate_sets: several ranks need a way to collect embeddings, got size {size} and "
            "no gather; pass one"
        )
    results = {}
    for name, pairs in sets.items():
        # Horovod: a bad image raises at once on one rank alone; on several it becomes a row of NaN,
        # so that all of them reach the exchange.
        embeddings, norms = embed(
            net,
            pairs.images,
            image_size,
            mean=mean,
            std=std,
            batch_size=batch_size,
            ctx=ctx,
            part=(rank, size),
            where=pairs.path,
            strict=gather is None,
            cut_off=cut_off,
        )
        rows = np.concatenate([embeddings, norms[:, None]], axis=1)  # (n, E + 1)
        if gather is not None:
            n, columns = rows.shape
            rows = np.asarray(gather(rows)).reshape(size, n, columns)
            rows = rows.transpose(1, 0, 2).reshape(size * n, columns)
        rows = rows[: len(pairs.images)]
        for index in np.flatnonzero(~np.isfinite(rows).all(axis=1)):
            # Every rank holds all encoded images: each finds the reason itself, and the same one.
            where = f"{pairs.path}: {place(int(index))}"
            decode_image(pairs.images[index], image_size, where, cut_off)
        try:
            results[name] = verify(rows[:, :-1], pairs.issame, norms=rows[:, -1])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return results
