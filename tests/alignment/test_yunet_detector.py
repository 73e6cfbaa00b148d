# SPDX-License-Identifier: Apache-2.0
"""YuNet in OpenCV, with a small network of its outputs that finds faces at white squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from alignment import detection_image
from alignment.yunet_detector import MAX_WEIGHTS_BYTES, WeightsError, YunetDetector

STRIDE, SIDE = 8, 24.0  # of the found faces in pixels
POINTS = np.array([[-8, -6], [8, -6], [0, 0], [-5, 6], [5, 6]])
"""Points of a found face, relative to its centre, in pixels."""


def write_network(path: Path) -> Path:
    """Write a network whose score is the brightness of each square of 8x8 pixels."""
    wanted = {
        "cls": [0.0],
        "obj": [1.0],
        "bbox": [0.5, 0.5, np.log(SIDE / STRIDE), np.log(SIDE / STRIDE)],
        "kps": (POINTS / STRIDE + 0.5).ravel().tolist(),
    }
    nodes, constants, outputs = [], [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    for stride in (8, 16, 32):
        for kind, bias in wanted.items():
            name, size = f"{kind}_{stride}", len(bias)
            weights = np.zeros((size, 3, stride, stride), np.float32)
            if kind == "cls" and stride == STRIDE:
                weights += 1 / (255 * 3 * stride**2)
            given = [
                "input",
                constant(f"{name}_w", weights),
                constant(f"{name}_b", np.float32(bias)),
            ]
            square = {"kernel_shape": [stride] * 2, "strides": [stride] * 2}
            nodes += [
                helper.make_node("Conv", given, [f"{name}_c"], **square),
                helper.make_node("Transpose", [f"{name}_c"], [f"{name}_t"], perm=[0, 2, 3, 1]),
                helper.make_node(
                    "Reshape",
                    [f"{name}_t", constant(f"{name}_s", np.int64([1, -1, size]))],
                    [name],
                ),
            ]
            shape = [1, (64 // stride) ** 2, size]
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph(nodes, "faces", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> YunetDetector:
    return YunetDetector(write_network(tmp_path_factory.mktemp("weights") / "yunet.onnx"))


def photograph(height: int, width: int, *squares: tuple[int, int], side: int = STRIDE):
    pixels = np.zeros((height, width, 3), np.uint8)
    for x, y in squares:
        pixels[y : y + side, x : x + side] = 255
    return pixels


@pytest.mark.parametrize("size", [(64, 64), (96, 200), (131, 77), (40, 48)])
def test_box_points_and_score_are_those_of_the_outputs(detector, size):
    (face,) = detector.find_faces(photograph(*size, (16, 24)))
    centre = np.array([20, 28])
    np.testing.assert_allclose(face.points, centre + POINTS, atol=1e-3)
    np.testing.assert_allclose(face.box, [8, 16, 32, 40], atol=1e-3)
    assert face.score == pytest.approx(1, abs=1e-3)


def test_every_face_is_found_and_dark_images_have_none(detector):
    found = detector.find_faces(photograph(96, 200, (16, 24), (120, 40)))
    assert sorted(round(face.points[2, 0]) for face in found) == [20, 124]
    for shape in ((1, 1), (5, 400), (64, 64), (2, 3000)):
        assert detector.find_faces(np.zeros((*shape, 3), np.uint8)) == []


def test_large_photographs_give_points_in_their_own_pixels(detector, monkeypatch):
    monkeypatch.setattr(detection_image, "MAX_DETECTION_SIDE", 128)
    (face,) = detector.find_faces(photograph(192, 256, (32, 48), side=16))
    np.testing.assert_allclose(face.points, np.array([40, 56]) + 2 * POINTS, atol=1)


def test_files_that_are_no_weights_are_one_sentence(tmp_path):
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("no network")
    identity = helper.make_node("Identity", ["input"], ["cls_8"])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 64, 64])
        for name in ("input", "cls_8")
    ]
    graph = helper.make_graph([identity], "other", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, ir_version=7), tmp_path / "other.onnx")
    with (tmp_path / "long.onnx").open("wb") as file:
        file.truncate(MAX_WEIGHTS_BYTES + 1)
    for name, problem in (
        ("none.onnx", "cannot be read, got No such file or directory"),
        (".", f"must be a file of 1 to {MAX_WEIGHTS_BYTES} bytes, got a folder or a special file"),
        ("empty.onnx", "got 0 bytes"),
        ("long.onnx", f"got {MAX_WEIGHTS_BYTES + 1} bytes"),
        ("text.onnx", "got a file that OpenCV cannot run as YuNet"),
        ("other.onnx", "got a file that OpenCV cannot run as YuNet"),
    ):
        with pytest.raises(WeightsError) as error:
            YunetDetector(tmp_path / name)
        text = str(error.value)
        assert text.startswith(f"--detector-weights: {tmp_path / name} ") and problem in text
        assert "\n" not in text
