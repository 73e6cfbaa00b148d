# SPDX-License-Identifier: Apache-2.0
"""What each rank reads, batch by batch: random access, blocks and people; windows beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np

from pipeline.records.open import RecordSet
from pipeline.sampling import permutations
from pipeline.sampling.augmentation import Augmentation, Choices, choose
from pipeline.sampling.permutations import Position

READ_AHEAD = 2
"""Groups whose records are asked for before they are read."""


class Plan(NamedTuple):
    """What a rank reads for one batch: rows of the set and what is done to them."""

    rows: np.ndarray
    choices: Choices
    after: Position


class Group(NamedTuple):
    """Batches that are decoded in one go: ``rows`` and ``choices`` of all their images.

    At the end of an epoch the window reader has read more than its batches need.
    """

    plans: Sequence[Plan]
    rows: np.ndarray
    choices: Choices
    images: Any
    """JPEG bytes or pixels in a form that ``DecodeGraph.feed`` takes."""
    release: Callable[[], None] = lambda: None
    """To be called, in the order of the groups, when the images are not needed any more."""


@dataclass(frozen=True)
class Share:
    """The part of the data that one rank reads."""

    rank: int = 0
    size: int = 1

    def global_batch_size(self, batch_size: int) -> int:
        """Return the images of all ranks per step."""
        return batch_size * self.size


def epoch_images(records: RecordSet, batch_size: int, size: int, images_per_person: int = 0) -> int:
    """Return the images that an epoch goes through: those of the set, or of groups of people.

    Parameters
    ----------
    batch_size, size
        Images per rank and step, number of ranks.
    images_per_person
        Images of each person's group; 0 for no groups.

    Raises
    ------
    ValueError
        If they do not fill one step.
    """
    images, found = len(records), f"{len(records)}"
    if images_per_person:
        people = len(np.unique(records.labels))
        images, found = people * images_per_person, f"{people} people x {images_per_person} images"
    if batch_size * size > images:
        raise ValueError(
            f"data.batch_size: {batch_size} x {size} ranks needs {batch_size * size} images per "
            f"step, got {found} in {records.name}; lower data.batch_size or add data"
        )
    return images


def planned(
    records: RecordSet,
    seed: int,
    position: Position,
    batch_size: int,
    share: Share,
    augmentation: Augmentation,
    order_of: Callable[[int], np.ndarray],
    images_per_epoch: int = 0,
) -> Iterator[Plan]:
    """Yield the batches of one rank from a position on.

    Parameters
    ----------
    order_of
        Gives the order of an epoch: rows of images (images_per_epoch,).
    images_per_epoch
        Its length; 0 for that of the set.
    """
    whole, order, epoch = share.global_batch_size(batch_size), None, -1
    images = images_per_epoch or len(records)
    while True:
        position = permutations.settle(position, images, whole)
        if position.epoch != epoch:
            order = None  # its memory is taken by the next one
            epoch = position.epoch
            order = order_of(epoch)
        assert order is not None
        rows = permutations.rank_rows(order, position.consumed, batch_size, share.rank, share.size)
        position = permutations.advance(position, whole)
        yield Plan(rows, choices_of(records, rows, seed, epoch, augmentation), position)


class Blocks:
    """Blocks of consecutive records in random order, their images mixed within a window.

    For disks that are slow to seek: it reads a block in one go.

    Parameters
    ----------
    block, window
        Images of a block, and images that are mixed.
    """

    def __init__(self, records: RecordSet, seed: int, block: int, window: int):
        self._count, self._seed, self._block, self._window = len(records), seed, block, window
        self._places = records.in_file_order()

    def order(self, epoch: int) -> np.ndarray:
        """Return the order of an epoch: rows of all images (N,), each once."""
        places = permutations.block_order(self._count, self._seed, epoch, self._block, self._window)
        return self._rows(places)

    def ahead(
        self, position: Position, read_ahead: Callable[[np.ndarray], None]
    ) -> Callable[[np.ndarray, Position], None]:
        """Return what ``grouped`` is to call to have blocks read before they are mixed.

        Parameters
        ----------
        position
            Where reading begins.
        read_ahead
            Called with the rows of blocks, each block once, a window before they are due.
        """
        blocks = self._blocks(position)
        due, places = next(blocks)

        def ask(rows: np.ndarray, after: Position) -> None:
            nonlocal due, places
            found: list[np.ndarray] = []
            while due < after.epoch * self._count + after.consumed + self._window:
                found.append(places)
                due, places = next(blocks)
            if found:
                read_ahead(self._rows(np.concatenate(found)))

        return ask

    def _blocks(self, position: Position) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (images of this and earlier epochs before it, its places) for each block."""
        first = position.consumed // self._window * self._window
        for epoch in count(position.epoch):
            firsts, sizes = permutations.shuffled_blocks(
                self._count, self._seed, epoch, self._block
            )
            ends = np.cumsum(sizes)
            for place, size, end in zip(firsts, sizes, ends, strict=True):
                if end > first:
                    yield epoch * self._count + int(end - size), np.arange(place, place + size)
            first = 0

    def _rows(self, places: np.ndarray) -> np.ndarray:
        return places if self._places is None else self._places[places]


class People:
    """Groups of images of one person each: batches that show people more than once.

    Parameters
    ----------
    labels
        Person of each row of a set.
    images_per_person
        Images of a group.
    """

    def __init__(self, labels: np.ndarray, seed: int, images_per_person: int):
        self._seed, self._images_per_person = seed, images_per_person
        self._rows = np.argsort(labels, kind="stable")  # person by person
        counts = np.bincount(labels)
        self._counts = counts[counts > 0]

    def order(self, epoch: int) -> np.ndarray:
        """Return the order of an epoch: rows of images, group after group."""
        each = self._images_per_person
        return self._rows[permutations.people_order(self._counts, self._seed, epoch, each)]


def grouped(
    plans: Iterator[Plan],
    together: int,
    images_of: Callable[[np.ndarray], Any],
    ask: Callable[[np.ndarray, Position], None] = lambda rows, after: None,
) -> Iterator[Group]:
    """Yield plans in groups of ``together`` batches, with their images.

    Parameters
    ----------
    images_of
        Gives the images of rows.
    ask
        Called with the rows of groups that will soon be wanted and where the data goes on after
        them, to have records read ahead.
    """
    waiting: deque[tuple[list[Plan], np.ndarray]] = deque()
    while True:
        while len(waiting) <= READ_AHEAD:
            group = list(islice(plans, together))
            rows = np.concatenate([plan.rows for plan in group])
            ask(rows, group[-1].after)
            waiting.append((group, rows))
        group, rows = waiting.popleft()
        choices = Choices(*map(np.concatenate, zip(*(p.choices for p in group), strict=True)))
        yield Group(group, rows, choices, images_of(rows))


def choices_of(
    records: RecordSet, rows: np.ndarray, seed: int, epoch: int, augmentation: Augmentation
) -> Choices:
    """Return what is done to the images of some rows."""
    return choose(augmentation, records.ids(rows), seed, epoch, records.image_size)
