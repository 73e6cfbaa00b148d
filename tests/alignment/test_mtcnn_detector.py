# SPDX-License-Identifier: Apache-2.0
"""The detector on photographs of rendered people, without a network."""

from __future__ import annotations

import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest

from alignment import detection_image
from alignment import mtcnn_detector as module
from alignment.mtcnn_detector import DetectorMissingError, MtcnnDetector, require_mtcnn
from alignment.template import eye_distance
from tests.photographs import CLEAR, draw_photograph


@pytest.fixture(scope="module")
def detector() -> MtcnnDetector:
    return MtcnnDetector(1)


def rgb(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def test_faces_are_found_near_their_points(detector):
    found, errors = 0, []
    for person, shot in CLEAR:
        pixels, points = draw_photograph(person, shot)
        faces = detector.find_faces(rgb(pixels))
        found += len(faces) > 0
        if faces:
            best = max(faces, key=lambda face: face.score)
            errors.append(np.linalg.norm(best.points - points, axis=1).mean())
            assert 0.7 <= best.score <= 1
            left, top, right, bottom = best.box
            assert left < best.points[0, 0] < right and top < best.points[0, 1] < bottom
    assert found >= 7 and np.median(errors) < 0.2 * eye_distance(points)


def test_large_photographs_give_points_in_their_own_pixels(detector, monkeypatch):
    monkeypatch.setattr(detection_image, "MAX_DETECTION_SIDE", 400)
    pixels, _ = draw_photograph(*CLEAR[0])
    small = detector.find_faces(rgb(pixels))[0]
    factor = 3  # 510x540 pixels are shrunk for the detector
    large = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    assert max(large.shape) > detection_image.MAX_DETECTION_SIDE
    faces = detector.find_faces(rgb(large))
    best = max(faces, key=lambda face: face.score)
    error = np.linalg.norm(best.points / factor - small.points, axis=1).mean()
    assert error < 0.15 * eye_distance(small.points)


@pytest.mark.parametrize("shape", [(1, 1), (5, 400), (20, 20), (100, 100), (2, 5000)])
def test_images_without_a_face_give_none(detector, shape):
    for value in (0, 127, 255):
        assert detector.find_faces(np.full((*shape, 3), value, np.uint8)) == []


def test_the_number_of_threads_is_given_to_the_networks_alone():
    import onnxruntime

    before = onnxruntime.InferenceSession
    seen = []

    class Session(before):
        def __init__(self, *arguments, **options):
            seen.append(options["sess_options"].intra_op_num_threads)
            super().__init__(*arguments, **options)

    onnxruntime.InferenceSession = Session
    try:
        MtcnnDetector(3)
        assert seen == [3, 3, 3] and onnxruntime.InferenceSession is Session
    finally:
        onnxruntime.InferenceSession = before


def test_detection_opens_no_connection(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    pixels, _ = draw_photograph(*CLEAR[0])
    assert MtcnnDetector(1).find_faces(rgb(pixels))


def test_a_missing_package_is_a_sentence_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(module, "_PACKAGE", "no_such_package")
    for attempt in (require_mtcnn, MtcnnDetector):
        with pytest.raises(DetectorMissingError) as error:
            attempt()
        text = str(error.value)
        assert text.startswith("--detector: the package mtcnn-runtime is required, got no such")
        assert f"{sys.executable} -m pip install --no-deps --require-hashes -r " in text
    lock = text.split(" -r ")[1].split(",")[0]
    assert "mtcnn-runtime==" in open(lock).read()


def test_neither_pytorch_nor_tensorflow_is_loaded():
    code = (
        "import sys; from alignment.mtcnn_detector import MtcnnDetector; MtcnnDetector(1);"
        "print({'torch', 'tensorflow', 'mxnet'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
