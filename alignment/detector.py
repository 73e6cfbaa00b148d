# SPDX-License-Identifier: Apache-2.0
"""Choose the detector that finds the faces of photographs and their five points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from alignment.mtcnn_detector import MtcnnDetector, require_mtcnn
from alignment.yunet_detector import YunetDetector

if TYPE_CHECKING:
    import numpy as np

    from alignment.face_choice import Face

MTCNN, YUNET = "mtcnn", "yunet"
DETECTORS = (MTCNN, YUNET)


class FaceDetector(Protocol):
    """Detector of faces and their five points."""

    def find_faces(self, pixels: np.ndarray) -> list[Face]:
        """Return the faces of an RGB image, uint8 (H, W, 3)."""


class DetectorChoice(NamedTuple):
    """Detector that a user has chosen."""

    name: str = MTCNN
    """One of DETECTORS."""
    weights: Path | None = None
    """ONNX file with the weights of YuNet; None for MTCNN, whose package contains its weights."""


def require_detector(choice: DetectorChoice) -> None:
    """Raise ValueError if a detector cannot be opened."""
    if choice.weights is None:
        require_mtcnn()
    else:
        YunetDetector(choice.weights)


def open_detector(choice: DetectorChoice, threads: int = 0) -> FaceDetector:
    """Open a detector.

    Parameters
    ----------
    threads
        Number of threads that MTCNN uses; 0 means one thread per core.  YuNet uses the threads of
        OpenCV.

    Raises
    ------
    ValueError
        If the package or the weights of the detector are missing or unusable.
    """
    if choice.weights is None:
        return MtcnnDetector(threads)
    return YunetDetector(choice.weights)
