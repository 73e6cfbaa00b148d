# SPDX-License-Identifier: Apache-2.0
"""Batch plans: the rows of each batch of a rank and what is done to them, one by one or grouped."""

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

READ_AHEAD_GROUPS = 2
"""Groups whose records are read ahead while another one is decoded."""


@dataclass(frozen=True)
class Share:
    """The part of the data that one rank reads."""

    rank: int = 0
    size: int = 1

    def global_batch_size(self, batch_size: int) -> int:
        """Return the images of all ranks per step."""
        return batch_size * self.size


class BatchPlan(NamedTuple):
    """What a rank reads for one batch."""

    rows: np.ndarray
    """Rows of the record set, int64 (B,)."""
    params: AugmentParams
    """What is done to the images."""
    after: Position
    """Where the data resumes after this batch."""


class BatchGroup(NamedTuple):
    """Batches that are decoded in one go."""

    plans: Sequence[BatchPlan]
    rows: np.ndarray
    """Those of all plans."""
    params: AugmentParams
    """Those of all plans."""
    images: Any = None
    """JPEG bytes or pixels in a form that ``DecodeGraph.feed`` takes."""


def epoch_images(records: RecordSet, batch_size: int, size: int, images_per_person: int = 0) -> int:
    """Return the images of an epoch: those of the set, or of groups of people.

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
    """Yield plans, which have no end, in groups of ``group_size`` batches.

    Parameters
    ----------
    read_ahead
        Called with the rows of groups that are due soon and the position after them.
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
