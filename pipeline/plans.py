# SPDX-License-Identifier: Apache-2.0
"""What each rank reads, batch by batch: random access and the window reader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline import sampling
from pipeline.augmentation import Augmentation, Choices, choose
from pipeline.records import RecordSet, write_image_index
from pipeline.sampling import Position


class Plan(NamedTuple):
    """What a rank reads for one batch: rows of the set, what is done to them, bytes if at hand."""

    rows: np.ndarray
    choices: Choices
    after: Position
    jpegs: list[np.ndarray] | None = None


@dataclass(frozen=True)
class Share:
    """The part of the data that one rank reads."""

    rank: int = 0
    size: int = 1

    def global_batch_size(self, batch_size: int) -> int:
        """Return the images of all ranks per step."""
        return batch_size * self.size


def random_plans(
    records: RecordSet,
    seed: int,
    position: Position,
    batch_size: int,
    share: Share,
    augmentation: Augmentation,
) -> Iterator[Plan]:
    """Yield the batches of one rank from a position on, one true permutation per epoch."""
    whole, order, epoch = share.global_batch_size(batch_size), None, -1
    while True:
        position = sampling.settle(position, len(records), whole)
        if position.epoch != epoch:
            epoch = position.epoch
            order = sampling.epoch_order(len(records), seed, epoch)
        rows = sampling.rank_rows(order, position.consumed, batch_size, share.rank, share.size)
        position = sampling.advance(position, whole)
        yield Plan(rows, _choose(records, rows, seed, epoch, augmentation), position)


def window_plans(
    records: RecordSet,
    seed: int,
    epoch: int,
    batch_size: int,
    share: Share,
    window: int,
    index_folder: Path,
    augmentation: Augmentation,
) -> Iterator[Plan]:
    """Yield the batches of one rank from the start of an epoch on, as DALI reads its shard.

    ``records`` is one set: DALI's reader takes several files for one stream that was cut up, and
    loses its place where a file begins with a picture.
    """
    from pipeline.dali import WindowReader

    (rec,) = records.files
    index_folder.mkdir(parents=True, exist_ok=True)
    index = index_folder / f"images-{share.rank}.idx"
    write_image_index(records, index)
    by_offset = np.argsort(records.offsets, kind="stable")
    sorted_offsets = records.offsets[by_offset]
    whole = share.global_batch_size(batch_size)
    while True:
        # A reader per epoch: its shard and its seed come from the epoch, so an epoch that is
        # begun again after a restart is the same.
        reader = WindowReader(
            rec,
            index,
            batch_size,
            shard_id=(share.rank + epoch) % share.size,
            num_shards=share.size,
            window=window,
            seed=(seed * 1_000_003 + epoch) % 2**31,
        )
        for step in range(len(records) // whole):
            jpegs, offsets = reader.read()
            rows = by_offset[np.searchsorted(sorted_offsets, offsets)]
            after = Position(epoch, (step + 1) * whole)
            yield Plan(rows, _choose(records, rows, seed, epoch, augmentation), after, jpegs)
        epoch += 1


def _choose(
    records: RecordSet, rows: np.ndarray, seed: int, epoch: int, augmentation: Augmentation
) -> Choices:
    return choose(augmentation, records.ids(rows), seed, epoch, records.image_size)
