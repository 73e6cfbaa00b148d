# SPDX-License-Identifier: Apache-2.0
"""Detect faces and their five points with MTCNN, from the package mtcnn-runtime.

Zhang et al., "Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks",
2016.  The package contains the weights as ONNX files and runs them with ONNX Runtime, so that
detection needs no Internet connection, no PyTorch and no TensorFlow.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from alignment.detection_image import make_detection_image
from alignment.face_choice import Face

_PACKAGE = "mtcnnruntime"
SMALLEST_FACE_PX = 20.0
"""Side of the smallest face that MTCNN searches for, in pixels of `DetectionImage.pixels`."""


class DetectorMissingError(ValueError):
    """Error for a detector whose package is not installed."""


class MtcnnDetector:
    """MTCNN with the weights of the package mtcnn-runtime.

    Parameters
    ----------
    threads
        Number of threads that each network uses; 0 means one thread per core.

    Raises
    ------
    DetectorMissingError
        If the package is not installed.
    """

    def __init__(self, threads: int = 0):
        require_mtcnn()
        import mtcnnruntime

        with _limited_threads(threads):
            self._network = mtcnnruntime.MTCNN()

    def find_faces(self, pixels: np.ndarray) -> list[Face]:
        """Return the faces of an RGB image, uint8 (H, W, 3)."""
        image = make_detection_image(pixels)
        faces = []
        for box, points in self._detect(image.pixels):
            corners = image.to_photograph(box[:4].reshape(2, 2))
            found = image.to_photograph(points.reshape(2, 5).T)
            if np.isfinite(found).all() and np.isfinite(corners).all():
                faces.append(Face(corners.reshape(4), found, float(box[4])))
        return faces

    def _detect(self, pixels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield for each face (left, top, right, bottom, score) and (x1, ..., x5, y1, ..., y5)."""
        try:
            boxes, points = self._network.detect(pixels, min_face_size=SMALLEST_FACE_PX)
        except (ValueError, cv2.error):
            # The package raises these errors if its first network finds nothing in the image.
            return
        yield from zip(np.asarray(boxes, float), np.asarray(points, float), strict=True)


def require_mtcnn() -> None:
    """Raise DetectorMissingError if the package of the detector is not installed."""
    if importlib.util.find_spec(_PACKAGE) is None:
        lock = Path(__file__).resolve().parents[1] / "requirements" / "align.txt"
        raise DetectorMissingError(
            "--detector: the package mtcnn-runtime is required, got no such package; install it "
            f"with {sys.executable} -m pip install --no-deps --require-hashes -r {lock}, or pass "
            "--landmarks FILE"
        )


@contextmanager
def _limited_threads(threads: int) -> Iterator[None]:
    """Inside a ``with`` block, let ONNX Runtime open sessions with ``threads`` threads.

    The package mtcnn-runtime offers no option for the number of threads.
    """
    import onnxruntime

    original: Any = onnxruntime.InferenceSession
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    onnxruntime.InferenceSession = functools.partial(original, sess_options=options)
    try:
        yield
    finally:
        onnxruntime.InferenceSession = original
