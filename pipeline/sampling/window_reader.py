# SPDX-License-Identifier: Apache-2.0
"""What each rank reads with ``data.reader=window``: a shard of the file through a shuffle buffer.

DALI's ``fn.readers.mxnet`` reads where DALI decodes (``pipeline.decode.dali_reader``), unless the
set leaves much of its file out (``Scan.has_gaps``).  Its order is computed (``window_plans``): so
augmentation and labels are known, and the compiled decoder reads in the same order without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from pipeline.records.index_cache import parts
from pipeline.records.open import RecordSet
from pipeline.sampling.augmentation import Augmentation, Choices
from pipeline.sampling.batches import Plan, Share, choices_of
from pipeline.sampling.permutations import Position
from pipeline.sampling.window_order import window_order

if TYPE_CHECKING:
    from ops.feed import LoaderKernels  # which brings MXNet

AHEAD = 1024
"""Records that are asked for in one go, before they come into the window."""
SOUND_RECORD_BYTES = 1 << 20
MOST_GAP_BYTES = 1 << 26
"""Bytes that DALI's reader may take for records of one window beyond `SOUND_RECORD_BYTES` each."""


class Scan:
    """The shards that a rank reads, one in each epoch.

    Shard and seed come from the epoch, so an epoch that is begun again after a restart is the same.

    Parameters
    ----------
    window
        Images of the shuffle buffer.
    """

    def __init__(self, records: RecordSet, seed: int, share: Share, window: int):
        self.records, self.share, self.window = records, share, window
        self._seed = seed
        self._places = records.in_file_order()

    def shard(self, epoch: int) -> int:
        """Return the number of the shard."""
        return (self.share.rank + epoch) % self.share.size

    def reader_seed(self, epoch: int) -> int:
        """Return the seed of the reader."""
        return (self._seed * 1_000_003 + epoch) % 2**31

    def choices(self, rows: np.ndarray, epoch: int, augmentation: Augmentation) -> Choices:
        """Return what is done to the images of some rows."""
        return choices_of(self.records, rows, self._seed, epoch, augmentation)

    def places(self, epoch: int) -> range:
        """Return the places of the shard in the file, as ``fn.readers.mxnet`` cuts it."""
        shard, size = self.shard(epoch), self.share.size
        return range(*(len(self.records) * k // size for k in (shard, shard + 1)))

    def has_gaps(self) -> bool:
        """Return whether DALI's reader would take much memory for what is not in the set.

        It takes a record to reach up to the next line of its index, the last one up to the end of
        the file, and holds a window of them in memory (it copies where a window is large). Records
        that the .idx or data.images_filter leaves out, and whatever follows the last one, are read
        with the record before them.
        """
        count = len(self.records)
        large = [np.empty(0, np.int64)]
        for part in parts(count):
            begins = self.records.offsets[self.rows(np.arange(part.start, min(part.stop, count)))]
            if part.stop < count:
                end = int(self.records.offsets[self.rows(np.array([part.stop]))[0]])
            else:
                end = self.records.files[0].stat().st_size
            spans = np.diff(begins, append=end)
            large.append(spans[spans > SOUND_RECORD_BYTES])
        largest = np.sort(np.concatenate(large))[-self.window :]
        return int(largest.sum()) > MOST_GAP_BYTES

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Return the rows at some places in the file."""
        return places if self._places is None else self._places[places]

    def ahead(
        self, epoch: int, read_ahead: Callable[[np.ndarray], None]
    ) -> Callable[[np.ndarray, Position], None]:
        """Return what ``grouped`` is to call to have records read before they are in the window.

        Parameters
        ----------
        epoch
            Where reading begins.
        read_ahead
            Called with rows in the order of the file, each once in an epoch.
        """
        left = self.places(epoch)  # that were not asked for

        def ask(_: np.ndarray, after: Position) -> None:
            nonlocal epoch, left
            if after.epoch != epoch:
                epoch, left = after.epoch, self.places(after.epoch)
            shard = self.places(epoch)
            wanted = shard.start + after.consumed // self.share.size + self.window
            if left.start < min(wanted, left.stop):
                piece = range(left.start, min(wanted + AHEAD, left.stop))
                read_ahead(self.rows(np.arange(piece.start, piece.stop)))
                left = range(piece.stop, left.stop)

        return ask


def window_plans(
    scan: Scan, epoch: int, batch_size: int, augmentation: Augmentation, feed: LoaderKernels | None
) -> Iterator[Plan]:
    """Yield the batches of one rank from the start of an epoch on, in the order of DALI's reader.

    ``feed`` has the compiled functions; without them the order takes half a second for a million.
    """
    order_of = window_order if feed is None else feed.window_order
    whole = scan.share.global_batch_size(batch_size)
    steps = len(scan.records) // whole
    for now in count(epoch):
        shard, seed = scan.places(now), scan.reader_seed(now)
        order = order_of(len(shard), steps * batch_size, scan.window, seed)
        for step in range(steps):
            places = order[step * batch_size : (step + 1) * batch_size].astype(np.int64)
            rows = scan.rows(shard.start + places)
            after = Position(now, (step + 1) * whole)
            yield Plan(rows, scan.choices(rows, now, augmentation), after)
