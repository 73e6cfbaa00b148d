# SPDX-License-Identifier: Apache-2.0
"""Samplers, which choose the images of each batch of a rank and the images to read ahead.

``make_sampler`` returns the sampler for the value of ``data.reader``.  A sampler returns images as
rows, the indices of the images in the record set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.records.record_set import row_slices
from pipeline.sampling import epoch_orders
from pipeline.sampling.batches import Share, epoch_images
from pipeline.sampling.epoch_orders import Position
from pipeline.sampling.window_order import window_order

if TYPE_CHECKING:
    from pipeline.records import RecordSet

READERS = ("random", "blocks", "window")
READ_AHEAD_IMAGES = 1024  # smallest number of images that the window sampler reads ahead at a time
_SMALL_WINDOW_IMAGES = 16_384
NORMAL_RECORD_BYTES = 1 << 20
# Largest total size of those records in DALI's shuffle buffer that exceed NORMAL_RECORD_BYTES.
MAX_GAP_BYTES = 1 << 26

Upcoming = Callable[[np.ndarray, Position], np.ndarray]
"""Function that returns the rows to read ahead now; its arguments are the rows (n,) of the next
batches and the position after those batches."""


class Sampler(Protocol):
    """Interface of samplers, which choose the rows of each batch of one rank."""

    batch_size: int
    images_per_epoch: int
    """Number of images per epoch of all ranks, including the tail after the last global batch."""

    def start(self, position: Position) -> Position:
        """Return the position at which reading starts if a run resumes at ``position``."""

    def batches(self, start: Position) -> Iterator[tuple[np.ndarray, Position]]:
        """Yield an endless sequence of batches as pairs (rows, position after the batch).

        The first batch begins at ``start``, a position that the method ``start`` has returned.  The
        rows are int64 (B,).
        """

    def upcoming(self, start: Position) -> Upcoming:
        """Return a function that returns the rows to read ahead.

        Call that function once for each group of batches, in the order of the groups.
        """


class RandomSampler:
    """Sampler with one permutation of all images per epoch, cut into global batches.

    Each rank reads its slice of each global batch.
    """

    def __init__(
        self,
        records: RecordSet,
        batch_size: int,
        *,
        seed: int = 1,
        share: Share = Share(),
        images_per_person: int = 0,
    ):
        self.images_per_epoch = epoch_images(records, batch_size, share.size, images_per_person)
        self.batch_size, self._seed, self._share = batch_size, seed, share

    def order(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch in reading order, shape (images_per_epoch,)."""
        return epoch_orders.epoch_order(self.images_per_epoch, self._seed, epoch)

    def start(self, position: Position) -> Position:
        step_images = self._share.global_batch_size(self.batch_size)
        return epoch_orders.skip_tail(position, self.images_per_epoch, step_images)

    def batches(self, start: Position) -> Iterator[tuple[np.ndarray, Position]]:
        rank, size = self._share.rank, self._share.size
        position, order, epoch = start, None, -1
        while True:
            position = self.start(position)
            if position.epoch != epoch:
                order = None  # free this order's memory before the next order is made
                epoch = position.epoch
                order = self.order(epoch)
            assert order is not None
            consumed = position.consumed
            position = Position(epoch, consumed + self.batch_size * size)
            yield epoch_orders.rank_rows(order, consumed, self.batch_size, rank, size), position

    def upcoming(self, start: Position) -> Upcoming:
        return lambda rows, after: rows


class PersonSampler(RandomSampler):
    """Sampler whose batches consist of groups of ``images_per_person`` images of one person.

    An epoch has one group of every person.
    """

    def __init__(
        self, records: RecordSet, batch_size: int, *, images_per_person: int, **options: Any
    ):
        super().__init__(records, batch_size, images_per_person=images_per_person, **options)
        self._images_per_person = images_per_person
        self._rows_by_person = np.argsort(records.labels, kind="stable")
        counts = np.bincount(records.labels)
        self._counts = counts[counts > 0]

    def order(self, epoch: int) -> np.ndarray:
        each = self._images_per_person
        order = epoch_orders.people_order(self._counts, self._seed, epoch, each)
        return self._rows_by_person[order]


class BlockSampler(RandomSampler):
    """Sampler of blocks of consecutive records in random order, shuffled within a window.

    Use this sampler for disks with slow seeks: read-ahead reads a block with one request.
    ``block`` and ``window`` are numbers of images.
    """

    def __init__(
        self, records: RecordSet, batch_size: int, *, block: int, window: int, **options: Any
    ):
        super().__init__(records, batch_size, **options)
        # Values above the number of images would give the same order, but would need more memory.
        self._block, self._window = (min(n, self.images_per_epoch) for n in (block, window))
        self._file_order = records.file_order()

    def order(self, epoch: int) -> np.ndarray:
        images = self.images_per_epoch
        places = epoch_orders.block_order(images, self._seed, epoch, self._block, self._window)
        return _rows_at(self._file_order, places)

    def upcoming(self, start: Position) -> Upcoming:
        """Return a function that returns the rows of the next blocks to read ahead.

        No block is returned twice.  The shuffle can move an image to a place that is almost
        ``window`` images earlier.  So a block is returned with the first group that ends less than
        ``window`` images before the block begins.
        """
        blocks = self._blocks(start)
        first, places = next(blocks)

        def next_blocks(rows: np.ndarray, after: Position) -> np.ndarray:
            nonlocal first, places
            found = [np.empty(0, dtype=np.int64)]
            reach = after.epoch * self.images_per_epoch + after.consumed + self._window
            while first < reach:
                found.append(places)
                first, places = next(blocks)
            return _rows_at(self._file_order, np.concatenate(found))

        return next_blocks

    def _blocks(self, start: Position) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each block as a pair (number of images in all blocks before it, places).

        The first block holds the first image of the shuffle window in which ``start`` lies.
        The number is counted from the start of epoch 0.  The places are indices of the records in
        file order.
        """
        first = start.consumed // self._window * self._window
        images = self.images_per_epoch
        for epoch in count(start.epoch):
            firsts, sizes = epoch_orders.shuffled_blocks(images, self._seed, epoch, self._block)
            ends = np.cumsum(sizes)
            for place, size, end in zip(firsts, sizes, ends, strict=True):
                if end > first:
                    yield epoch * images + int(end - size), np.arange(place, place + size)
            first = 0


class WindowSampler:
    """Sampler with the order of DALI's ``fn.readers.mxnet``, which shuffles a shard of one file.

    ``window`` is the size of DALI's shuffle buffer in images.  After each epoch a rank changes to
    the next shard and to another seed.  The shard and the seed of a rank depend only on the epoch,
    so an epoch that restarts has the same order.  ``order_of`` is ``window_order``, either in
    Python or compiled (ops.feed).

    The constructor refuses all record sets of several files.  On some of these sets DALI's reader
    fails: on those in which a file has no header record, so that its first record is an image.
    """

    def __init__(
        self,
        records: RecordSet,
        batch_size: int,
        *,
        window: int,
        seed: int = 1,
        share: Share = Share(),
        order_of: Callable[[int, int, int, int], np.ndarray] = window_order,
    ):
        self.images_per_epoch = epoch_images(records, batch_size, share.size)
        if len(records.files) > 1:
            raise ValueError(
                f"data.reader: 'window' reads one record set, got {len(records.files)}; merge them "
                "with `python -m tools.data shuffle`, or use data.reader=random"
            )
        self.batch_size, self.share = batch_size, share
        # DALI reserves memory for the complete buffer, even if the set has fewer images.  So limit
        # a large window to the number of images.
        self.window = min(window, max(self.images_per_epoch, _SMALL_WINDOW_IMAGES))
        self._records, self._seed, self._order_of = records, seed, order_of
        self._file_order = records.file_order()

    def start(self, position: Position) -> Position:
        """Return the position at which reading starts: the first image of the epoch.

        The shuffle buffer cannot be restored in the middle of an epoch, so the epoch restarts.
        """
        step_images = self.share.global_batch_size(self.batch_size)
        epoch = epoch_orders.skip_tail(position, self.images_per_epoch, step_images).epoch
        return Position(epoch, 0)

    def batches(self, start: Position) -> Iterator[tuple[np.ndarray, Position]]:
        size, step_images = self.batch_size, self.share.global_batch_size(self.batch_size)
        for epoch in count(start.epoch):
            first, order = self.places(epoch).start, self.order(epoch)
            for step in range(len(order) // size):
                places = order[step * size : (step + 1) * size].astype(np.int64)
                yield self.rows(first + places), Position(epoch, (step + 1) * step_images)

    def upcoming(self, start: Position) -> Upcoming:
        """Return a function that returns the rows that enter DALI's shuffle buffer next.

        Each row is returned once, in file order.  A call returns either no rows or at least
        READ_AHEAD_IMAGES rows; only the last rows of the shard may be fewer.
        """
        epoch, remaining = start.epoch, self.places(start.epoch)

        def next_records(rows: np.ndarray, after: Position) -> np.ndarray:
            nonlocal epoch, remaining
            if after.epoch != epoch:
                epoch, remaining = after.epoch, self.places(after.epoch)
            shard = self.places(epoch)
            reach = shard.start + after.consumed // self.share.size + self.window
            if remaining.start >= min(reach, remaining.stop):
                return np.empty(0, dtype=np.int64)
            stop = min(reach + READ_AHEAD_IMAGES, remaining.stop)
            places = np.arange(remaining.start, stop)
            remaining = range(stop, remaining.stop)
            return self.rows(places)

        return next_records

    def order(self, epoch: int) -> np.ndarray:
        """Return the order in which the full batches of an epoch use the shard.

        The result holds indices into the shard, int32 (n,).
        """
        steps = self.images_per_epoch // self.share.global_batch_size(self.batch_size)
        return self._order_of(
            len(self.places(epoch)), steps * self.batch_size, self.window, self.reader_seed(epoch)
        )

    def shard(self, epoch: int) -> int:
        """Return the number of the shard that this rank reads in an epoch."""
        return (self.share.rank + epoch) % self.share.size

    def reader_seed(self, epoch: int) -> int:
        """Return the seed of the reader's shuffle buffer in an epoch."""
        return (self._seed * 1_000_003 + epoch) % 2**31

    def places(self, epoch: int) -> range:
        """Return this rank's shard in an epoch, as ``fn.readers.mxnet`` cuts the file into shards.

        The range holds the indices of the shard's records in file order.
        """
        shard, size = self.shard(epoch), self.share.size
        return range(*(self.images_per_epoch * k // size for k in (shard, shard + 1)))

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Return the rows of the record set at some places in file order."""
        return _rows_at(self._file_order, places)

    def has_gaps(self) -> bool:
        """Return whether DALI's reader would use too much memory for bytes between the records.

        For DALI a record ends at the next offset of the index, or at the end of the file.  If the
        .idx or data.images_filter leaves records out, DALI reads them as a part of the record
        before them.  DALI's reader may copy all records of its shuffle buffer to memory, including
        these bytes.
        """
        images = self.images_per_epoch
        large = [np.empty(0, np.int64)]
        for part in row_slices(images):
            places = np.arange(part.start, min(part.stop + 1, images))
            offsets = self._records.offsets[self.rows(places)]
            if part.stop >= images:
                offsets = np.append(offsets, self._records.files[0].stat().st_size)
            spans = np.diff(offsets)
            large.append(spans[spans > NORMAL_RECORD_BYTES])
        largest = np.sort(np.concatenate(large))[-self.window :]
        return int(largest.sum()) > MAX_GAP_BYTES


def _rows_at(file_order: np.ndarray | None, places: np.ndarray) -> np.ndarray:
    """Return the rows at some places of ``file_order``, the result of ``RecordSet.file_order``."""
    return places if file_order is None else file_order[places]


def make_sampler(
    reader: str,
    records: RecordSet,
    batch_size: int,
    *,
    block: int,
    window: int,
    images_per_person: int,
    order_of: Callable[[int, int, int, int], np.ndarray] = window_order,
    **options: Any,
) -> Sampler:
    """Build the sampler for one of READERS; ``options`` are the options that all samplers share.

    Raises ValueError if the reader is unknown or the set has fewer images than one step.
    """
    if reader not in READERS:
        raise ValueError(f"data.reader: must be one of {', '.join(READERS)}, got {reader!r}")
    if reader == "blocks":
        return BlockSampler(records, batch_size, block=block, window=window, **options)
    if reader == "window":
        return WindowSampler(records, batch_size, window=window, order_of=order_of, **options)
    if images_per_person:
        return PersonSampler(records, batch_size, images_per_person=images_per_person, **options)
    return RandomSampler(records, batch_size, **options)
