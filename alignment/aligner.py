# SPDX-License-Identifier: Apache-2.0
"""Align the face of a photograph: find its points, check the face, warp it to the template."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from alignment.face_choice import Face, choose_face, face_of_points
from alignment.landmark_files import Landmarks
from alignment.similarity import fit_similarity, map_points, scale_of, warp
from alignment.template import eye_distance, target_points

if TYPE_CHECKING:
    from alignment.detector import FaceDetector

ALIGNED, CENTRE = "aligned", "centre"
NO_FACE, NO_POINTS = "no face", "no points"
SMALL, UNSURE, BLURRED, ODD = "small", "unsure", "blurred", "odd points"
STATUSES = {
    ALIGNED: "aligned",
    CENTRE: "cut out around their centre, because no face fits the rules",
    NO_FACE: "without a face",
    NO_POINTS: "without points in the file of landmarks",
    SMALL: "with a face below --min-face",
    UNSURE: "with a face below --min-score",
    BLURRED: "with a face below --min-sharpness",
    ODD: "with points that do not have the shape of a face",
}
"""Description of each result of aligning; in messages, it follows words such as "3 photographs"."""
MAX_RESIDUAL = 0.42
"""Largest accepted result of `residual_of`; a face with a larger result has the status ODD."""
CENTRE_PART = 0.875
"""Longer side of the part that `cut_centre` keeps, divided by the photograph's shorter side."""


class FaceRules(NamedTuple):
    """Rules by which a face is aligned or rejected."""

    min_face_px: float = 24.0
    """Smallest accepted value of `Alignment.side_px`."""
    min_score: float = 0.7
    """Smallest accepted confidence of the detector, 0 to 1."""
    min_sharpness: float = 0.0
    """Smallest accepted sharpness of the aligned image, see `measure_sharpness`."""
    centre: bool = False
    """Whether to cut out the centre of a photograph that has no face that fits the rules."""


class Alignment(NamedTuple):
    """Result of aligning one photograph."""

    status: str
    """Key of STATUSES."""
    pixels: np.ndarray | None = None
    """Aligned RGB image, uint8 (height, width, 3); None if the photograph is rejected."""
    points: np.ndarray | None = None
    """Five points of the face in the photograph, (5, 2); None if there is no face."""
    faces: int = 0
    """Number of faces that were found."""
    score: float = 0.0
    side_px: float = 0.0
    """Longer side of the part of the photograph that becomes the aligned image, in pixels."""
    sharpness: float = 0.0


class FaceAligner:
    """Aligns photographs to one image size.

    Parameters
    ----------
    source
        Source of the points: a detector, or the points of a file.  None: the caller gives `align`
        the points of every photograph.
    image_size
        (height, width) of the aligned images in pixels.
    rules
        Rules that say which faces are rejected.
    """

    def __init__(
        self,
        source: FaceDetector | Landmarks | None,
        image_size: tuple[int, int],
        rules: FaceRules = FaceRules(),
    ):
        self.image_size = image_size
        self._source = source
        self._rules = rules
        self._targets = target_points(*image_size)

    def align(
        self,
        path: str | os.PathLike[str],
        pixels: np.ndarray,
        points: np.ndarray | None = None,
    ) -> Alignment:
        """Align the main face of a photograph.

        Parameters
        ----------
        path
            Path of the photograph.  A file of points is searched for this path.
        pixels
            Upright RGB pixels, uint8 (H, W, 3).
        points
            Five points of the face, float (5, 2); None: the source of the aligner gives them.
        """
        if points is not None:
            found = self._align([face_of_points(points)], pixels)
        else:
            found = self._align(self._find_faces(path, pixels), pixels)
        if self._rules.centre and found.pixels is None:
            return found._replace(status=CENTRE, pixels=cut_centre(pixels, self.image_size))
        return found

    def _align(self, faces: list[Face] | None, pixels: np.ndarray) -> Alignment:
        if faces is None:
            return Alignment(NO_POINTS)
        sure = [face for face in faces if face.score >= self._rules.min_score]
        if not sure:
            best = max(faces, key=lambda face: face.score, default=None)
            if best is None:
                return Alignment(NO_FACE)
            return Alignment(UNSURE, points=best.points, faces=len(faces), score=best.score)
        face = choose_face(sure, (pixels.shape[0], pixels.shape[1]))
        found = Alignment(ALIGNED, points=face.points, faces=len(faces), score=face.score)
        if eye_distance(face.points) < 1e-3:
            return found._replace(status=ODD)
        matrix = fit_similarity(face.points, self._targets)
        if residual_of(matrix, face.points, self._targets) > MAX_RESIDUAL:
            return found._replace(status=ODD)
        found = found._replace(side_px=max(self.image_size) / scale_of(matrix))
        if found.side_px < self._rules.min_face_px:
            return found._replace(status=SMALL)
        aligned = warp(pixels, matrix, self.image_size)
        found = found._replace(sharpness=measure_sharpness(aligned))
        if found.sharpness < self._rules.min_sharpness:
            return found._replace(status=BLURRED)
        return found._replace(pixels=aligned)

    def _find_faces(self, path: str | os.PathLike[str], pixels: np.ndarray) -> list[Face] | None:
        if self._source is None:
            return None
        if isinstance(self._source, Landmarks):
            points = self._source.find(path)
            return None if points is None else [face_of_points(face) for face in points]
        return self._source.find_faces(pixels)


def residual_of(matrix: np.ndarray, points: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean distance of mapped points from their targets, divided by the eye distance.

    ``matrix`` maps the points.  The eye distance is that of the targets.  The result is about 0.1
    for a frontal face, at most 0.38 for a profile, and at least 0.44 for points in a wrong order.
    """
    distances = np.linalg.norm(map_points(matrix, points) - targets, axis=1)
    return float(distances.mean()) / eye_distance(targets)


def measure_sharpness(pixels: np.ndarray) -> float:
    """Convert an image, uint8 (H, W, 3), to grey; return the variance of its Laplacian.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study", 2000.
    """
    return float(cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def cut_centre(pixels: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return the centre of an image, uint8 (H, W, 3), resized to (height, width)."""
    height, width = pixels.shape[:2]
    scale = max(image_size) / (CENTRE_PART * min(height, width))
    matrix = np.array(
        [
            [scale, 0.0, (image_size[1] - scale * width) / 2],
            [0.0, scale, (image_size[0] - scale * height) / 2],
        ]
    )
    return warp(pixels, matrix, image_size)
