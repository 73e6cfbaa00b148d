# SPDX-License-Identifier: Apache-2.0
"""Detect faces and their five points with YuNet, from a file of weights that the user names.

Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023.  OpenCV runs the network, so that
detection needs no further package.  No suitable package contains the weights, so the user downloads
``face_detection_yunet_*.onnx`` of OpenCV's model zoo, or ``yunet_n_320_320.onnx`` of the authors.
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from alignment.detection_image import make_detection_image
from alignment.face_choice import Face

MAX_WEIGHTS_BYTES = 1 << 26
_MIN_SCORE, _MAX_OVERLAP, _MAX_CANDIDATES = 0.5, 0.3, 5000
# Smaller images are padded to this side, because OpenCV 4.11 sometimes returns uninitialised memory
# for images with a side below 64 pixels.
_LEAST_SIDE = 64
_COLUMNS = 15  # left, top, width and height of the box, five points as (x, y), and the score


class WeightsError(ValueError):
    """Error for a file that does not hold the weights of YuNet."""


class YunetDetector:
    """YuNet with the weights of an ONNX file.

    Parameters
    ----------
    weights
        Path of the file.

    Raises
    ------
    WeightsError
        If the file cannot be read, or is no network with the outputs of YuNet.
    """

    def __init__(self, weights: Path):
        _check_file(weights)
        # Setting the image size and detecting are two calls; no other thread may call in between.
        self._lock = threading.Lock()
        size = (_LEAST_SIDE, _LEAST_SIDE)
        with _silent_opencv():
            try:
                self._network = cv2.FaceDetectorYN.create(
                    str(weights), "", size, _MIN_SCORE, _MAX_OVERLAP, _MAX_CANDIDATES
                )
                self._detect(np.zeros((*size, 3), np.uint8))
            except (cv2.error, SystemError):
                raise WeightsError(
                    f"--detector-weights: {weights} must be an ONNX file of YuNet with a fixed "
                    "image size, got a file that OpenCV cannot run as YuNet; name a file such as "
                    "face_detection_yunet_2023mar.onnx"
                ) from None

    def find_faces(self, pixels: np.ndarray) -> list[Face]:
        """Return the faces of an RGB image, uint8 (H, W, 3)."""
        image = make_detection_image(pixels)
        faces = []
        for row in self._detect(image.pixels):
            if not np.isfinite(row).all() or min(row[2:4]) < 1:
                continue
            corners = image.to_photograph(np.stack([row[:2], row[:2] + row[2:4]]))
            points = image.to_photograph(row[4:14].reshape(5, 2))
            faces.append(Face(corners.reshape(4), points, float(row[14])))
        return faces

    def _detect(self, pixels: np.ndarray) -> np.ndarray:
        """Detect the F faces in an image of BGR pixels; return float64 (F, _COLUMNS)."""
        below, right = (max(0, _LEAST_SIDE - side) for side in pixels.shape[:2])
        if below or right:
            pixels = cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_CONSTANT)
        with self._lock:
            self._network.setInputSize((pixels.shape[1], pixels.shape[0]))
            found = self._network.detect(pixels)[1]
        if found is None:
            return np.empty((0, _COLUMNS))
        return np.asarray(found, np.float64).reshape(-1, _COLUMNS)


def _check_file(path: Path) -> None:
    try:
        state = path.stat()
        if stat.S_ISREG(state.st_mode):
            with path.open("rb"):
                size = state.st_size
        else:
            size = -1
    except OSError as error:
        raise WeightsError(
            f"--detector-weights: {path} cannot be read, got {error.strerror}; name the ONNX file "
            "of YuNet"
        ) from None
    if not 0 < size <= MAX_WEIGHTS_BYTES:
        what = "a folder or a special file" if size < 0 else f"{size} bytes"
        raise WeightsError(
            f"--detector-weights: {path} must be a file of 1 to {MAX_WEIGHTS_BYTES} bytes, got "
            f"{what}; name the ONNX file of YuNet"
        )


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Inside a ``with`` block, keep OpenCV from printing its errors, and from starting threads.

    The process may fork later, and a forked process could wait forever for a lock that a thread of
    OpenCV held during the fork.
    """
    level, threads = cv2.getLogLevel(), cv2.getNumThreads()
    cv2.setLogLevel(0)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        cv2.setLogLevel(level)
