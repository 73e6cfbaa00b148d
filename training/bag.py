# SPDX-License-Identifier: Apache-2.0
"""Semi-hard triplet mining in bags of images.

``Bags`` wraps a loader.  It collects the loader's batches in a bag, embeds the images, selects
semi-hard triplets, and returns batches of anchors, positives and negatives, one third each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np
from mxnet import gluon

if TYPE_CHECKING:
    from launch.ranks.comm import Comm

MAX_EMPTY_BAGS = 20
"""The run ends after this number of consecutive bags with too few triplets for one batch."""
ANCHORS_PER_BLOCK = 512
"""Number of rows of the distance matrix that are in memory at the same time."""


class Bags:
    """Endless iterator over batches of triplets.

    A batch has the type of the loader's batches and holds ``batch_size / 3`` anchors, then their
    positives, then their negatives.  Field ``after`` of a batch is the position (epoch, images
    consumed in this epoch) at which a run that resumes after this batch starts to read.  In all
    batches of a bag except the last, ``after`` is the position of the bag's first image, because a
    resumed run mines the triplets of the bag again.

    Parameters
    ----------
    loader
        Iterator of batches with several images per person: named tuples with ``image``, ``label``
        and ``after``.
    net
        Network that embeds the images of a bag, in inference mode.
    comm
        Communication between ranks.  All ranks use the same number of batches of a bag: the number
        that the rank with the fewest triplets can fill.
    bag
        Number of images in a bag on this rank, a multiple of ``batch_size``.
    batch_size
        Images per batch, a multiple of 3.
    alpha, angular
        A negative is semi-hard if it is farther from the anchor than the positive is, by less than
        ``alpha``.  Distances are angles in radians if ``angular`` is True, else squared Euclidean
        distances.
    seed
        Seed of the run.  Random choices depend on the seed, the position of the bag and the rank.
    start
        Position of the loader's first image, as a pair (epoch, images consumed in this epoch).
    say
        Function that writes one line to the log.

    Notes
    -----
    Schroff et al., "FaceNet", arXiv:1503.03832, section 3.2.  InsightFace also mines in bags.
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
        self._template: Any = None  # a batch without image and label
        self._labels = np.empty(0)
        self._batches = self._endless()

    def __iter__(self) -> Bags:
        return self

    def __next__(self) -> Any:
        """Return the next batch of triplets; wait for the other ranks before each new bag.

        Raises
        ------
        ValueError
            If this rank reads a damaged image, or if MAX_EMPTY_BAGS consecutive bags contain too
            few triplets for a batch.
        FloatingPointError
            If an embedding is NaN or infinite.
        """
        return next(self._batches)

    def _endless(self) -> Iterator[Any]:
        empty = 0
        while True:
            triplets, end, trouble = self._next_bag()
            # Horovod: a rank with an error also calls gather, because the other ranks wait for all
            # ranks.  That rank sends -1 instead of its number of batches.
            batches = -1 if trouble else len(triplets) * 3 // self._batch_size
            steps = int(self._comm.gather(np.array([[batches]])).min())
            if trouble:
                raise trouble
            if steps < 0:
                yield from self._repeat_images()
            if steps:
                empty = 0
                self._say(
                    f"bag at epoch {self._start[0]}, image {self._start[1]}: {len(triplets)} "
                    f"triplets found in {self._bag} images, used in {steps} steps"
                )
            else:
                empty += 1
            if empty == MAX_EMPTY_BAGS:
                raise ValueError(
                    f"data.bag: {empty} consecutive bags have too few triplets for a batch, got "
                    f"{len(triplets)} triplets from the {self._bag} images of the last bag; almost "
                    f"no negatives are within head.margin={self._alpha:g}: increase head.margin or "
                    "data.bag, or end the training"
                )
            third = self._batch_size // 3
            for step in range(steps):
                rows = triplets[step * third : (step + 1) * third].T.reshape(-1)
                yield self._batch(rows, end if step == steps - 1 else self._start)
            self._start = end

    def _next_bag(self) -> tuple[np.ndarray, Any, Exception | None]:
        """Fill the next bag with images and choose triplets.

        Return the triplets, the position in the order of the epoch at which the next bag begins,
        and the exception that this rank has raised, or None.  The triplets (T, 3) hold the row
        numbers in the bag: anchor, positive, negative.
        """
        try:
            embedding, end = self._fill()
            generator = np.random.default_rng([self._seed, *self._start, self._comm.rank])
            chosen = choose_triplets(embedding, self._labels, self._alpha, self._angular, generator)
            return generator.permutation(chosen), end, None
        except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
            return np.empty((0, 3), np.int64), self._start, error

    def _fill(self) -> tuple[np.ndarray, Any]:
        """Fill the bag with the next n images of the loader and embed these images.

        Return embeddings (n, E) with L2 norm 1, and the position in the order of the epoch at which
        the next bag begins.
        """
        labels, embeddings, skipped = [], [], ()
        for first in range(0, self._bag, self._batch_size):
            batch = next(self._loader)
            if self._images is None:
                shape = (self._bag, *batch.image.shape[1:])
                self._images = mx.nd.empty(shape, ctx=batch.image.context)
            self._images[first : first + self._batch_size] = batch.image
            # Sync: copy the embeddings now; the next forward pass overwrites the net's output.
            embeddings.append(self._net(batch.image).asnumpy())
            labels.append(batch.label.asnumpy())
            skipped += getattr(batch, "skipped", ())
        self._labels = np.concatenate(labels)
        embedding = np.concatenate(embeddings)
        if not np.isfinite(embedding).all():
            raise FloatingPointError("the embeddings of a bag are not finite, got NaN or infinity")
        self._template = batch._replace(image=None, label=None)
        if skipped:  # each batch of triplets names the bad images of the whole bag
            self._template = self._template._replace(skipped=skipped)
        lengths = np.sqrt((embedding**2).sum(axis=1, keepdims=True) + 1e-10)
        return embedding / lengths, batch.after

    def _batch(self, rows: np.ndarray, after: Any) -> Any:
        assert self._images is not None
        ctx = self._images.context
        image = mx.nd.take(self._images, mx.nd.array(rows, ctx=ctx, dtype="int32"))
        label = mx.nd.array(self._labels[rows], ctx=ctx)
        return self._template._replace(image=image, label=label, after=after)

    def _repeat_images(self) -> Iterator[Any]:
        """Yield a batch of the bag's first images endlessly, after another rank has failed.

        This generator does not communicate.  All ranks exit at the next exchange of errors in the
        training loop.
        """
        while True:
            yield self._batch(np.arange(self._batch_size), self._start)


def choose_triplets(
    embedding: np.ndarray,
    label: np.ndarray,
    alpha: float,
    angular: bool,
    generator: np.random.Generator,
) -> np.ndarray:
    """Choose one semi-hard negative for each pair of images of one person.

    The first image of the pair is the anchor a, the second is the positive p.  The negative n is
    drawn uniformly from the images of other classes with d(a, p) < d(a, n) < d(a, p) + alpha.  A
    pair without such images is skipped.  Return T triplets as int64 (T, 3): the row numbers in
    ``embedding`` of the anchor, the positive and the negative.

    Parameters
    ----------
    embedding
        Embeddings of n images, (n, E), with L2 norm 1.
    label
        Class of each image, (n,).
    alpha, angular
        Width ``alpha`` of the allowed range of d(a, n).  Distances d are angles in radians if
        ``angular`` is True, else squared Euclidean distances.
    generator
        Source of the random choices.
    """
    found = []
    squares = (embedding**2).sum(axis=1)
    for first in range(0, len(label), ANCHORS_PER_BLOCK):
        rows = slice(first, first + ANCHORS_PER_BLOCK)
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
