# SPDX-License-Identifier: Apache-2.0
"""Images that cannot be read or decoded, and the images that replace them in a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pipeline.records.mapped import RecordError
from pipeline.records.record_set import ImageError
from pipeline.sampling.augmentation import AugmentParams
from pipeline.sampling.batches import BatchGroup, BatchPlan, SkippedImage, join_plans

if TYPE_CHECKING:
    from pipeline.records import RecordSet

T = TypeVar("T")
Work = TypeVar("Work", BatchPlan, BatchGroup)


class BadImages:
    """Bad images that this rank has found, and the rule for replacing them in batches.

    A bad image is replaced by another image of its batch: by the next good image of the same class
    or, if there is none, by the next good image.  After the last image of the batch the search
    continues with the first image.  So the batch depends only on its plan and on which of its
    images are bad.  It depends neither on the decoder nor on the order in which the bad images were
    found.

    Parameters
    ----------
    records
        The record set.
    permitted
        Number of images that may be bad (see `permitted_images`).  None: no image may be bad.
    """

    def __init__(self, records: RecordSet, permitted: int | None = None):
        self._records, self._permitted = records, permitted
        self._problems: dict[int, str] = {}  # problem of each bad image, by row
        self._rows = np.empty(0, dtype=np.int64)

    @property
    def skips(self) -> bool:
        """Return whether bad images are replaced; if not, ``add`` raises the error of an image."""
        return self._permitted is not None

    def add(self, error: ImageError) -> None:
        """Record a bad image; raise RecordError if too many images of this rank are bad.

        Raise ``error`` if bad images are not replaced.
        """
        if self._permitted is None:
            raise error
        if error.row in self._problems:  # recorded after this batch was planned
            return
        self._problems[error.row] = error.problem
        self._rows = np.array(sorted(self._problems))
        if len(self._rows) > self._permitted:
            raise RecordError(
                f"data.max_bad_fraction: permits {self._permitted} bad images of "
                f"{len(self._records)}, got {len(self._rows)}, of which the last is: "
                f"{error.problem}; repair the records or raise data.max_bad_fraction"
            )

    def replace(self, plan: BatchPlan) -> BatchPlan:
        """Return the plan with every known bad image replaced, or ``plan`` if it has none.

        Raise RecordError if all images of the plan are bad.
        """
        original = plan.original or plan
        if not len(self._rows):
            return plan
        is_bad = np.isin(original.rows, self._rows)
        if not is_bad.any():
            return plan
        rows = original.rows
        if is_bad.all():
            raise RecordError(
                f"data.on_bad_image: a batch needs a good image, got {len(rows)} bad images, of "
                f"which the first is: {self._problems[int(rows[0])]}; repair the records"
            )
        places = replacements(is_bad, self._records.labels[rows])
        ids = self._records.ids(rows)
        return original._replace(
            rows=rows[places],
            params=AugmentParams(*(values[places] for values in original.params)),
            skipped=tuple(
                SkippedImage(int(ids[place]), self._problems[int(rows[place])])
                for place in np.flatnonzero(is_bad)
            ),
            original=original,
        )

    def knows(self, row: int) -> bool:
        """Return whether the image of a row is already recorded as bad."""
        return row in self._problems

    def retried(
        self,
        work: Work,
        finish: Callable[[], T],
        start: Callable[[Work], Callable[[], T]],
        check_files: Callable[[], None],
    ) -> tuple[T, Work]:
        """Return the result of ``finish()`` and the work that the result belongs to.

        As long as ``finish`` raises ImageError, this method adds the bad image, replaces it in the
        work and starts the work again.

        Parameters
        ----------
        work
            Plan of one batch, or group of batches.
        finish
            Function that waits for the images of ``work``, which has been started.
        start
            Function that starts work and returns a function that waits for the images.
        check_files
            Function that raises RecordError if a file became shorter.  The missing bytes of such a
            file read as zeros, which look like a bad image.
        """
        while True:
            try:
                return finish(), work
            except ImageError as error:
                check_files()
                self.add(error)
                work = self.replace_all([work], error)[0]
            finish = start(work)

    def replace_all(self, works: Sequence[Work], error: ImageError) -> list[Work]:
        """Replace the known bad images of plans or groups; return the new plans or groups.

        Call ``add(error)`` before this method.  If no image is replaced, the method raises
        ``error``, because the caller would otherwise retry the same images forever.
        """
        replaced: list[Any] = []
        for work in works:
            replace: Any = self.replace_in if isinstance(work, BatchGroup) else self.replace
            replaced.append(replace(work))
        if all(np.array_equal(a.rows, b.rows) for a, b in zip(works, replaced, strict=True)):
            raise error
        return replaced

    def replace_in(self, group: BatchGroup) -> BatchGroup:
        """Return the group with every known bad image replaced within its batch."""
        plans = [self.replace(plan) for plan in group.plans]
        changed = any(new is not old for new, old in zip(plans, group.plans, strict=True))
        return join_plans(plans) if changed else group


def replacements(is_bad: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return, for each place of a batch, the place of the image to use there, int64 (B,).

    A good image is used at its own place.  A bad image is replaced by the next good image of the
    same class in the batch, or else by the next good image.  ``is_bad`` is bool (B,) with at least
    one False, and ``labels`` are the classes (B,).
    """
    places, count = np.arange(len(is_bad)), len(is_bad)
    for place in np.flatnonzero(is_bad):
        following = (place + 1 + np.arange(count - 1)) % count
        good = following[~is_bad[following]]
        same = good[labels[good] == labels[place]]
        places[place] = same[0] if len(same) else good[0]
    return places


def permitted_images(fraction: float, images: int) -> int:
    """Return how many of ``images`` images may be bad if the fraction ``fraction`` may be bad.

    Any fraction above 0 permits at least one bad image.  Otherwise a fraction of 0.001 would permit
    none in a set of fewer than 1000 images.
    """
    return max(1, int(fraction * images)) if fraction else 0
