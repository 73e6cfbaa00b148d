# SPDX-License-Identifier: Apache-2.0
"""The choice of a detector."""

from __future__ import annotations

import pytest

from alignment import detector
from alignment.detector import DetectorChoice, open_detector, require_detector
from alignment.mtcnn_detector import MtcnnDetector
from alignment.yunet_detector import YunetDetector
from tests.alignment.test_yunet_detector import write_network


def test_the_weights_decide_which_detector_is_opened(tmp_path):
    weights = write_network(tmp_path / "yunet.onnx")
    assert isinstance(open_detector(DetectorChoice("yunet", weights)), YunetDetector)
    assert isinstance(open_detector(DetectorChoice(), 1), MtcnnDetector)


def test_a_detector_that_cannot_be_opened_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="--detector-weights: .*No such file"):
        require_detector(DetectorChoice("yunet", tmp_path / "none.onnx"))
    require_detector(DetectorChoice())

    def refuse():
        raise ValueError("no package")

    monkeypatch.setattr(detector, "require_mtcnn", refuse)
    with pytest.raises(ValueError, match="no package"):
        require_detector(DetectorChoice())
