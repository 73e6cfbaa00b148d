# SPDX-License-Identifier: Apache-2.0
"""Plans of batches, and groups of plans.

A plan states which images a batch has, as rows of the record set, and how each image is augmented.
"""

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

READ_AHEAD_GROUPS = 2  # number of groups that are read ahead while another group is decoded


@dataclass(frozen=True)
class Share:
    """Share of the data that one rank reads: its rank number and the number of ranks."""

    rank: int = 0
    size: int = 1

    def global_batch_size(self, batch_size: int) -> int:
        """Return the number of images per step of all ranks, for ``batch_size`` images per rank."""
        return batch_size * self.size


class SkippedImage(NamedTuple):
    """Bad image that another image of its batch replaces."""

    id: int  # unique number of the image (``RecordSet.ids``)
    problem: str  # sentence that names the file, the key and the fault


class BatchPlan(NamedTuple):
    """Plan of one batch of one rank: which images it holds, and how each image is augmented."""

    rows: np.ndarray  # int64 (B,): rows of the batch's images in the record set
    params: AugmentParams
    after: Position  # position in the data after this batch, from which a run can resume
    skipped: tuple[SkippedImage, ...] = ()  # bad images that were replaced
    original: BatchPlan | None = None  # plan before images were replaced; None: none was replaced


class BatchGroup(NamedTuple):
    """Group of batches that are decoded together."""

    plans: Sequence[BatchPlan]
    rows: np.ndarray  # rows of all plans, one plan after the other
    params: AugmentParams  # augmentation parameters of all plans, in the order of ``rows``
    images: Any = None  # JPEG bytes or pixels in a form that ``DecodeGraph.feed`` accepts


def epoch_images(records: RecordSet, batch_size: int, size: int, images_per_person: int = 0) -> int:
    """Return the number of images that all ranks together read in an epoch.

    Parameters
    ----------
    batch_size
        Number of images per rank and step.
    size
        Number of ranks.
    images_per_person
        Number of images in a group of images of one person.  An epoch has one group of every
        person.  0: no groups; an epoch has every image once.

    Raises
    ------
    ValueError
        If an epoch has fewer images than one step.
    """
    images, found = len(records), f"{len(records)}"
    if images_per_person:
        people = len(np.unique(records.labels))
        images, found = people * images_per_person, f"{people} classes x {images_per_person} images"
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
    """Yield a plan for each batch of a sampler, with random augmentation parameters."""
    for rows, after in batches:
        ids, size = records.ids(rows), records.image_size
        yield BatchPlan(rows, choose_params(augmentation, ids, seed, after.epoch, size), after)


def grouped(
    plans: Iterator[BatchPlan],
    group_size: int,
    read_ahead: Callable[[np.ndarray, Position], None] = lambda rows, after: None,
) -> Iterator[BatchGroup]:
    """Collect an endless sequence of plans into groups of ``group_size`` batches; yield the groups.

    Before a group is yielded, ``read_ahead`` has been called for this group and for the next
    READ_AHEAD_GROUPS groups.  ``read_ahead`` gets the rows of a group and the position after the
    group.
    """
    waiting: deque[tuple[list[BatchPlan], np.ndarray]] = deque()
    while True:
        while len(waiting) <= READ_AHEAD_GROUPS:
            group = list(islice(plans, group_size))
            rows = np.concatenate([plan.rows for plan in group])
            read_ahead(rows, group[-1].after)
            waiting.append((group, rows))
        group, _ = waiting.popleft()
        yield join_plans(group)


def join_plans(plans: Sequence[BatchPlan]) -> BatchGroup:
    """Join plans to one group, in their order."""
    params = zip(*(plan.params for plan in plans), strict=True)
    rows = np.concatenate([plan.rows for plan in plans])
    return BatchGroup(plans, rows, AugmentParams(*map(np.concatenate, params)))
