# SPDX-License-Identifier: Apache-2.0
"""Describe how photographs are aligned, so that each process can open its own aligner."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from alignment.aligner import FaceAligner, FaceRules
from alignment.detector import DetectorChoice, open_detector

if TYPE_CHECKING:
    from alignment.landmark_files import Landmarks


class AlignmentPlan(NamedTuple):
    """Source of the points, and rules that say which faces are rejected."""

    landmarks: Landmarks | None = None
    """Points of a file; None: the detector finds the points."""
    detector: DetectorChoice | None = None
    """Detector; without a detector and a file, only photographs with given points are aligned."""
    rules: FaceRules = FaceRules()

    def open_aligner(self, image_size: tuple[int, int], threads: int = 0) -> FaceAligner:
        """Return an aligner for images of (height, width) pixels.

        Parameters
        ----------
        threads
            Number of threads of the detector, see `alignment.detector.open_detector`.
        """
        if self.landmarks is not None or self.detector is None:
            return FaceAligner(self.landmarks, image_size, self.rules)
        return FaceAligner(open_detector(self.detector, threads), image_size, self.rules)
