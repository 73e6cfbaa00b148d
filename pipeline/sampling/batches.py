# SPDX-License-Identifier: Apache-2.0
"""Batch plans: rows and augmentation of each batch of a rank, and groups of such plans."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.sampling.augmentation import Augmentation, AugmentParams, choose_params

if TYPE_CHECKING:
    from pipeline.records import RecordSet
    from pipeline.sampling.epoch_orders import Position

READ_AHEAD_GROUPS = 2  # groups whose records are read ahead while another group is decoded


@dataclass(frozen=True)
class Share:
    """Part of the data that one rank reads: its number and the number of ranks."""

    rank: int = 0
    size: int = 1

    def global_batch_size(self, batch_size: int) -> int:
        """Return the number of images of all ranks per step."""
        return batch_size * self.size


class BatchPlan(NamedTuple):
    """Description of one batch of a rank."""

    rows: np.ndarray  # int64 (B,), rows of the record set
    params: AugmentParams
    after: Position  # position from which the data resumes after this batch


class BatchGroup(NamedTuple):
    """Batches that are decoded together."""

    plans: Sequence[BatchPlan]
    rows: np.ndarray  # rows of all plans
    params: AugmentParams  # parameters of all plans
    images: Any = None  # JPEG bytes or pixels in a form that ``DecodeGraph.feed`` accepts


def epoch_images(records: RecordSet, batch_size: int, size: int, images_per_person: int = 0) -> int:
    """Return the number of images of an epoch.

    Parameters
    ----------
    batch_size, size
        Number of images per rank and step; number of ranks.
    images_per_person
        Size of the groups of images of one person, of which an epoch has one per person.  0: an
        epoch has every image once.

    Raises
    ------
    ValueError
        If an epoch has fewer images than one step.
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


def batch_plans(
    records: RecordSet,
    batches: Iterator[tuple[np.ndarray, Position]],
    *,
    seed: int,
    augmentation: Augmentation,
) -> Iterator[BatchPlan]:
    """Yield the plans of a sampler's batches."""
    for rows, after in batches:
        ids, size = records.ids(rows), records.image_size
        yield BatchPlan(rows, choose_params(augmentation, ids, seed, after.epoch, size), after)


def grouped(
    plans: Iterator[BatchPlan],
    group_size: int,
    read_ahead: Callable[[np.ndarray, Position], None] = lambda rows, after: None,
) -> Iterator[BatchGroup]:
    """Yield endless plans in groups of ``group_size`` batches.

    ``read_ahead`` is called with the rows of each of the next groups and the position after them.
    """
    waiting: deque[tuple[list[BatchPlan], np.ndarray]] = deque()
    while True:
        while len(waiting) <= READ_AHEAD_GROUPS:
            group = list(islice(plans, group_size))
            rows = np.concatenate([plan.rows for plan in group])
            read_ahead(rows, group[-1].after)
            waiting.append((group, rows))
        group, rows = waiting.popleft()
        params = AugmentParams(*map(np.concatenate, zip(*(p.params for p in group), strict=True)))
        yield BatchGroup(group, rows, params)
