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
    """Points of a file; None: the detector, if there is one, finds the points."""
    detector: DetectorChoice | None = None
    """Detector, unused if there are ``landmarks``.

    If both are None, only photographs whose points the caller gives are aligned.
    """
    rules: FaceRules = FaceRules()

    def open_aligner(self, image_size: tuple[int, int], threads: int = 0) -> FaceAligner:
        """Return an aligner that makes images of one size.

        Parameters
        ----------
        image_size
            (height, width) of the aligned images in pixels.
        threads
            Number of threads of the detector, see `alignment.detector.open_detector`.
        """
        if self.landmarks is not None or self.detector is None:
            return FaceAligner(self.landmarks, image_size, self.rules)
        return FaceAligner(open_detector(self.detector, threads), image_size, self.rules)
