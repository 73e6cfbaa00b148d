# SPDX-License-Identifier: Apache-2.0
"""Which images a rank reads, in which order, and what to read ahead: a sampler per reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.records.index_cache import parts
from pipeline.sampling import epoch_orders
from pipeline.sampling.batches import Share, epoch_images
from pipeline.sampling.epoch_orders import Position
from pipeline.sampling.window_order import window_order

if TYPE_CHECKING:
    from pipeline.records import RecordSet

READERS = ("random", "blocks", "window")
AHEAD_IMAGES = 1024
"""Records that the window sampler has read ahead in one go, before they enter the window."""
NORMAL_RECORD_BYTES = 1 << 20
MAX_GAP_BYTES = 1 << 26
"""Bytes that DALI's reader may take for records of one window beyond `NORMAL_RECORD_BYTES` each."""

Upcoming = Callable[[np.ndarray, Position], np.ndarray]
"""(rows (n,) of the next batches, position after them) -> rows to read ahead now."""


class Sampler(Protocol):
    """The images of one rank, batch by batch."""

    batch_size: int
    images_per_epoch: int  # of all ranks, those that fill no global batch at the end included

    def start(self, position: Position) -> Position:
        """Return where reading starts when a run resumes at a position."""

    def batches(self, start: Position) -> Iterator[tuple[np.ndarray, Position]]:
        """Yield (rows (B,) int64, position after the batch) without end, from ``start(...)`` on."""

    def upcoming(self, start: Position) -> Upcoming:
        """Return the function that a decoder calls before each group of batches, in their order."""


class RandomSampler:
    """One true permutation of all images per epoch, of which each rank takes its slices."""

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
        """Return the order of an epoch: rows of images (images_per_epoch,)."""
        return epoch_orders.epoch_order(self.images_per_epoch, self._seed, epoch)

    def start(self, position: Position) -> Position:
        step_images = self._share.global_batch_size(self.batch_size)
        return epoch_orders.settle(position, self.images_per_epoch, step_images)

    def batches(self, start: Position) -> Iterator[tuple[np.ndarray, Position]]:
        rank, size = self._share.rank, self._share.size
        position, order, epoch = start, None, -1
        while True:
            position = self.start(position)
            if position.epoch != epoch:
                order = None  # the next one takes its memory
                epoch = position.epoch
                order = self.order(epoch)
            assert order is not None
            rows = epoch_orders.rank_rows(order, position.consumed, self.batch_size, rank, size)
            position = epoch_orders.advance(position, self.batch_size * size)
            yield rows, position

    def upcoming(self, start: Position) -> Upcoming:
        return lambda rows, after: rows


class PersonSampler(RandomSampler):
    """Groups of ``images_per_person`` images of one person; an epoch shows every person once."""

    def __init__(
        self, records: RecordSet, batch_size: int, *, images_per_person: int, **options: Any
    ):
        super().__init__(records, batch_size, images_per_person=images_per_person, **options)
        self._images_per_person = images_per_person
        self._rows = np.argsort(records.labels, kind="stable")  # person by person
        counts = np.bincount(records.labels)
        self._counts = counts[counts > 0]

    def order(self, epoch: int) -> np.ndarray:
        each = self._images_per_person
        return self._rows[epoch_orders.people_order(self._counts, self._seed, epoch, each)]


class BlockSampler(RandomSampler):
    """Blocks of consecutive records in random order, their images mixed within a window.

    For disks that are slow to seek: it reads a block in one go.

    ``block`` and ``window`` count images.
    """

    def __init__(
        self, records: RecordSet, batch_size: int, *, block: int, window: int, **options: Any
    ):
        super().__init__(records, batch_size, **options)
        self._block, self._window = block, window
        self._rows_in_file = records.in_file_order()

    def order(self, epoch: int) -> np.ndarray:
        images = self.images_per_epoch
        return self._rows(
            epoch_orders.block_order(images, self._seed, epoch, self._block, self._window)
        )

    def upcoming(self, start: Position) -> Upcoming:
        """Return a function that gives each block once, a window before its images are due."""
        blocks = self._blocks(start)
        due, places = next(blocks)

        def next_blocks(rows: np.ndarray, after: Position) -> np.ndarray:
            nonlocal due, places
            found = [np.empty(0, dtype=np.int64)]
            reach = after.epoch * self.images_per_epoch + after.consumed + self._window
            while due < reach:
                found.append(places)
                due, places = next(blocks)
            return self._rows(np.concatenate(found))

        return next_blocks

    def _blocks(self, start: Position) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (images of this and earlier epochs before it, its places) for each block."""
        first = start.consumed // self._window * self._window
        images = self.images_per_epoch
        for epoch in count(start.epoch):
            firsts, sizes = epoch_orders.shuffled_blocks(images, self._seed, epoch, self._block)
            ends = np.cumsum(sizes)
            for place, size, end in zip(firsts, sizes, ends, strict=True):
                if end > first:
                    yield epoch * images + int(end - size), np.arange(place, place + size)
            first = 0

    def _rows(self, places: np.ndarray) -> np.ndarray:
        return places if self._rows_in_file is None else self._rows_in_file[places]


class WindowSampler:
    """The order of ``fn.readers.mxnet``: a shard of the file through a buffer of ``window`` images.

    Each rank reads another shard in each epoch.  Shard and seed come from the epoch, so an epoch
    that starts again after a restart is the same.  ``order_of`` is the compiled ``window_order`` of
    ops.feed or its twin in Python.  A set of several files is refused: DALI's reader takes them for
    one stream that was cut up, and loses its place where a file begins with an image.
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
                f"data.reader: 'window' reads one record set, got {len(records.files)}; make one "
                "of them with tools/shuffle_records.py, or use data.reader=random"
            )
        self.batch_size, self.share, self.window = batch_size, share, window
        self._records, self._seed, self._order_of = records, seed, order_of
        self._rows_in_file = records.in_file_order()

    def start(self, position: Position) -> Position:
        """Return the start of the epoch: the window cannot be filled again in the middle."""
        step_images = self.share.global_batch_size(self.batch_size)
        return Position(epoch_orders.settle(position, self.images_per_epoch, step_images).epoch, 0)

    def batches(self, start: Position) -> Iterator[tuple[np.ndarray, Position]]:
        size, step_images = self.batch_size, self.share.global_batch_size(self.batch_size)
        for epoch in count(start.epoch):
            first, order = self.places(epoch).start, self.order(epoch)
            for step in range(len(order) // size):
                places = order[step * size : (step + 1) * size].astype(np.int64)
                yield self.rows(first + places), Position(epoch, (step + 1) * step_images)

    def upcoming(self, start: Position) -> Upcoming:
        """Return a function that gives each row once, as the file lies, before it is in the window.

        ``AHEAD_IMAGES`` at a time.
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
            stop = min(reach + AHEAD_IMAGES, remaining.stop)
            places = np.arange(remaining.start, stop)
            remaining = range(stop, remaining.stop)
            return self.rows(places)

        return next_records

    def order(self, epoch: int) -> np.ndarray:
        """Return the order of an epoch: places in the shard, int32, whole batches of them."""
        steps = self.images_per_epoch // self.share.global_batch_size(self.batch_size)
        return self._order_of(
            len(self.places(epoch)), steps * self.batch_size, self.window, self.reader_seed(epoch)
        )

    def shard(self, epoch: int) -> int:
        """Return the number of the shard that this rank reads."""
        return (self.share.rank + epoch) % self.share.size

    def reader_seed(self, epoch: int) -> int:
        """Return the seed of the shuffle buffer."""
        return (self._seed * 1_000_003 + epoch) % 2**31

    def places(self, epoch: int) -> range:
        """Return the places of the shard in the file, as ``fn.readers.mxnet`` cuts it."""
        shard, size = self.shard(epoch), self.share.size
        return range(*(self.images_per_epoch * k // size for k in (shard, shard + 1)))

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Return the rows at some places in the file."""
        return places if self._rows_in_file is None else self._rows_in_file[places]

    def has_gaps(self) -> bool:
        """Return whether DALI's reader would take much memory for what is not in the set.

        It takes a record to reach up to the next line of its index, the last one up to the end of
        the file, and holds a window of them in memory (it copies where a window is large).  Records
        that the .idx or data.images_filter leaves out, and whatever follows the last one, are read
        with the record before them.
        """
        images = self.images_per_epoch
        large = [np.empty(0, np.int64)]
        for part in parts(images):
            places = np.arange(part.start, min(part.stop, images))
            begins = self._records.offsets[self.rows(places)]
            if part.stop < images:
                end = int(self._records.offsets[self.rows(np.array([part.stop]))[0]])
            else:
                end = self._records.files[0].stat().st_size
            spans = np.diff(begins, append=end)
            large.append(spans[spans > NORMAL_RECORD_BYTES])
        largest = np.sort(np.concatenate(large))[-self.window :]
        return int(largest.sum()) > MAX_GAP_BYTES


def make_sampler(
    reader: str,
    records: RecordSet,
    batch_size: int,
    *,
    seed: int,
    share: Share,
    block: int,
    window: int,
    images_per_person: int,
    order_of: Callable[[int, int, int, int], np.ndarray] = window_order,
) -> Sampler:
    """Return the sampler of a reader; ValueError if it is unknown or the set is too small."""
    if reader not in READERS:
        raise ValueError(f"data.reader: must be one of {', '.join(READERS)}, got {reader!r}")
    options: dict[str, Any] = {"seed": seed, "share": share}
    if reader == "blocks":
        return BlockSampler(records, batch_size, block=block, window=window, **options)
    if reader == "window":
        return WindowSampler(records, batch_size, window=window, order_of=order_of, **options)
    if images_per_person:
        return PersonSampler(records, batch_size, images_per_person=images_per_person, **options)
    return RandomSampler(records, batch_size, **options)
