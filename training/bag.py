# SPDX-License-Identifier: Apache-2.0
"""Triplets out of bags: many images are embedded, semi-hard triplets chosen, and those trained on.

``Bags`` stands in the place of the loader.  It takes its batches, of groups of people, fills a bag
with them, and gives batches of anchors, positives and negatives, a third each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np
from mxnet import gluon

if TYPE_CHECKING:
    from launch.ranks.comm import Comm

EMPTY_BAGS = 20
"""So many bags in a row without triplets for a batch end the run."""
ROWS = 512  # anchors whose distances to the images of a bag are held at a time


class Bags:
    """Iterate over batches of triplets without end.

    A batch is of the loader's own kind: B / 3 anchors, their positives, their negatives.  Within a
    bag ``after`` is where the bag starts: a resumed run chooses its triplets again.

    Parameters
    ----------
    loader
        Gives batches of groups of people: named tuples with ``image``, ``label`` and ``after``.
    net
        Embeds the images of a bag, in inference mode.
    comm
        All ranks take as many batches from a bag as the one with the fewest triplets has.
    bag
        Images of a bag on this rank, a multiple of ``batch_size``.
    batch_size
        Images per batch, a multiple of 3.
    alpha, angular
        Semi-hard are negatives that are farther than the positive, but by less than alpha: in
        squared distance or, if angular, as an angle in radians.
    seed
        With the position and the rank it says which negatives are taken, in which order.
    start
        Position that the loader starts at.
    say
        Takes a line for the log.

    Notes
    -----
    Of Schroff et al., "FaceNet", arXiv:1503.03832, section 3.2; the bag is InsightFace's.
    """

    def __init__(
        self,
        loader: Any,
        net: gluon.HybridBlock,
        comm: Comm,
        *,
        bag: int,
        batch_size: int,
        alpha: float,
        angular: bool,
        seed: int,
        start: Any,
        say: Callable[[str], None],
    ):
        self.images_per_epoch = loader.images_per_epoch
        self._loader, self._net, self._comm, self._say = loader, net, comm, say
        self._bag, self._batch_size, self._seed = bag, batch_size, seed
        self._alpha, self._angular = alpha, angular
        self._start = start
        self._images: mx.nd.NDArray | None = None
        self._template: Any = None  # a batch of the loader without its arrays
        self._labels = np.empty(0)
        self._batches = self._endless()

    def __iter__(self) -> Bags:
        return self

    def __next__(self) -> Any:
        """Return the next batch; between bags it waits for the other ranks.

        Raises
        ------
        ValueError
            If an image is damaged on this rank, or too few triplets are found.
        FloatingPointError
            If the embeddings are not finite.
        """
        return next(self._batches)

    def _endless(self) -> Iterator[Any]:
        empty = 0
        while True:
            triplets, end, trouble = self._next_bag()
            # Horovod: a rank in trouble takes part, so that the others learn of it.
            fits = -1 if trouble else len(triplets) * 3 // self._batch_size
            steps = int(self._comm.gather(np.array([[fits]])).min())
            if trouble:
                raise trouble
            if steps < 0:
                yield from self._until_all_leave()
            if steps:
                empty = 0
                self._say(
                    f"bag at epoch {self._start[0]}, image {self._start[1]}: {len(triplets)} "
                    f"triplets of {self._bag} images, {steps} steps"
                )
            else:
                empty += 1
            if empty == EMPTY_BAGS:
                raise ValueError(
                    f"data.bag: {empty} bags in a row gave too few triplets for a batch, got "
                    f"{len(triplets)} of {self._bag} images; nobody is left within head.margin="
                    f"{self._alpha:g}, raise it, enlarge data.bag, or end the training here"
                )
            third = self._batch_size // 3
            for step in range(steps):
                rows = triplets[step * third : (step + 1) * third].T.reshape(-1)
                yield self._batch(rows, end if step == steps - 1 else self._start)
            self._start = end

    def _next_bag(self) -> tuple[np.ndarray, Any, Exception | None]:
        """Return triplets (T, 3), the position after the bag, and what went wrong."""
        try:
            embedding, end = self._fill()
            generator = np.random.default_rng([self._seed, *self._start, self._comm.rank])
            chosen = choose_triplets(embedding, self._labels, self._alpha, self._angular, generator)
            return generator.permutation(chosen), end, None
        except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
            return np.empty((0, 3), np.int64), self._start, error

    def _fill(self) -> tuple[np.ndarray, Any]:
        """Put new images into the bag; return their embeddings (n, E) and the position after."""
        labels, embeddings = [], []
        for first in range(0, self._bag, self._batch_size):
            batch = next(self._loader)
            if self._images is None:
                shape = (self._bag, *batch.image.shape[1:])
                self._images = mx.nd.empty(shape, ctx=batch.image.context)
            self._images[first : first + self._batch_size] = batch.image
            # Sync: the next forward pass writes to the same place.
            embeddings.append(self._net(batch.image).asnumpy())
            labels.append(batch.label.asnumpy())
        self._labels = np.concatenate(labels)
        embedding = np.concatenate(embeddings)
        if not np.isfinite(embedding).all():
            raise FloatingPointError("the embeddings of a bag are not finite, got NaN or infinity")
        self._template = batch._replace(image=None, label=None)
        lengths = np.sqrt((embedding**2).sum(axis=1, keepdims=True) + 1e-10)
        return embedding / lengths, batch.after

    def _batch(self, rows: np.ndarray, after: Any) -> Any:
        assert self._images is not None
        ctx = self._images.context
        image = mx.nd.take(self._images, mx.nd.array(rows, ctx=ctx, dtype="int32"))
        label = mx.nd.array(self._labels[rows], ctx=ctx)
        return self._template._replace(image=image, label=label, after=after)

    def _until_all_leave(self) -> Iterator[Any]:
        """Give any batch, without asking the other ranks: one of them has stopped asking."""
        while True:
            yield self._batch(np.arange(self._batch_size), self._start)


def choose_triplets(
    embedding: np.ndarray,
    label: np.ndarray,
    alpha: float,
    angular: bool,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return (anchor, positive, negative) for each pair of images of one person: int64 (T, 3).

    The anchor is the earlier of the two.  The negative is one of those with
    d(a, p) < d(a, n) < d(a, p) + alpha, each as likely as another; a pair without any is left out.

    Parameters
    ----------
    embedding
        (n, E), of length 1.
    label
        (n,), person of each.
    alpha, angular
        Width of the range of negatives; whether distances are angles in radians, else squared.
    generator
        Draws the negatives.
    """
    found = []
    squares = (embedding**2).sum(axis=1)
    for first in range(0, len(label), ROWS):
        rows = slice(first, first + ROWS)
        product = embedding[rows] @ embedding.T
        distances = (
            np.arccos(np.clip(product, -1, 1))
            if angular
            else squares[rows, None] + squares - 2 * product
        )
        for anchor, distance in enumerate(distances, first):
            same = label == label[anchor]
            positives = np.flatnonzero(same[anchor + 1 :]) + anchor + 1
            if not len(positives):
                continue
            others = np.flatnonzero(~same)
            far = distance[others]
            for positive in positives:
                near = distance[positive]
                within = others[(far > near) & (far < near + alpha)]
                if len(within):
                    negative = within[generator.integers(len(within))]
                    found.append((anchor, positive, negative))
    return np.array(found, dtype=np.int64).reshape(-1, 3)
