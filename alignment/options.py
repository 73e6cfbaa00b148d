# SPDX-License-Identifier: Apache-2.0
"""Options of commands that align photographs, and their checks."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from alignment.aligner import FaceRules
from alignment.detector import DETECTORS, MTCNN, YUNET, DetectorChoice, FaceDetector, open_detector
from alignment.landmark_files import Landmarks, read_landmarks

DEFAULTS = FaceRules()
_NAMES = {
    "landmarks": "--landmarks",
    "detector": "--detector",
    "detector_weights": "--detector-weights",
    "min_face": "--min-face",
    "min_score": "--min-score",
    "min_sharpness": "--min-sharpness",
    "centre": "--centre",
}


def add_alignment_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how the points are found and which faces are rejected."""
    parser.add_argument(
        "--landmarks",
        type=_path,
        metavar="FILE",
        help="file with five points per face: lines of path and ten numbers, InsightFace's .lst, "
        "RFW's _lmk.txt, or JSON (default: the points come from the detector)",
    )
    parser.add_argument(
        "--detector",
        metavar="NAME",
        help=f"detector that finds the points: {', '.join(DETECTORS)} (default: {MTCNN}); {MTCNN} "
        f"needs the package in requirements/align.txt, {YUNET} needs --detector-weights, and "
        "neither needs an Internet connection",
    )
    parser.add_argument(
        "--detector-weights",
        type=_path,
        metavar="FILE",
        help=f"weights for --detector {YUNET}: face_detection_yunet_2023mar.onnx of OpenCV's model "
        "zoo, or yunet_n_320_320.onnx of YuNet's authors",
    )
    parser.add_argument(
        "--min-face",
        type=float,
        metavar="PIXELS",
        help="smallest allowed side, in pixels, of the part of a photograph that is warped to the "
        f"aligned image (default: {DEFAULTS.min_face_px:g})",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        metavar="CONFIDENCE",
        help="smallest allowed confidence of the detector, from 0 to 1 (default: "
        f"{DEFAULTS.min_score:g})",
    )
    parser.add_argument(
        "--min-sharpness",
        type=float,
        metavar="VARIANCE",
        help="smallest allowed variance of the Laplacian of an aligned image; in images of 112 "
        "pixels, blurred faces have less than about 20 (default: 0, no face is too blurred)",
    )
    parser.add_argument(
        "--centre",
        action="store_true",
        default=None,
        help="cut out the centre of a photograph that has no face, or whose face is rejected, "
        "instead of leaving the photograph out",
    )


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def refuse_options_without(switch: str, options: argparse.Namespace) -> None:
    """Raise ValueError if an option of `add_alignment_options` is given without ``switch``."""
    for name, option in _NAMES.items():
        value = getattr(options, name)
        if value is not None:
            raise ValueError(
                f"{option}: applies only together with {switch}, got {option} alone; add {switch}"
            )


def read_rules(options: argparse.Namespace) -> FaceRules:
    """Check the options; return the rules that the options state."""
    _check_range("--min-face", options.min_face, math.inf)
    _check_range("--min-score", options.min_score, 1.0)
    _check_range("--min-sharpness", options.min_sharpness, math.inf)
    if options.detector is not None and options.detector not in DETECTORS:
        from suggestions import listed

        raise ValueError(
            f"--detector: must be the name of a detector, got {options.detector!r}; "
            f"{listed(options.detector, DETECTORS)}"
        )
    _check_weights(options)
    if options.detector is not None and options.landmarks is not None:
        raise ValueError(
            "--detector: the points come from a file or from a detector, got both --landmarks and "
            "--detector; omit one of them"
        )
    given = {
        "min_face_px": options.min_face,
        "min_score": options.min_score,
        "min_sharpness": options.min_sharpness,
        "centre": options.centre,
    }
    return DEFAULTS._replace(**{k: v for k, v in given.items() if v is not None})


def _check_weights(options: argparse.Namespace) -> None:
    if options.detector == YUNET and options.detector_weights is None:
        raise ValueError(
            f"--detector: {YUNET} needs the file of its weights, got no --detector-weights; add "
            "--detector-weights face_detection_yunet_2023mar.onnx, a file of OpenCV's model zoo"
        )
    if options.detector != YUNET and options.detector_weights is not None:
        raise ValueError(
            f"--detector-weights: applies only together with --detector {YUNET}, got "
            f"{options.detector or 'no --detector'}; add --detector {YUNET}"
        )


def _check_range(option: str, value: float | None, largest: float) -> None:
    if value is not None and not (0 <= value <= largest and math.isfinite(value)):
        limits = "from 0 to 1" if largest == 1 else "0 or more"
        raise ValueError(f"{option}: must be {limits}, got {value}; correct the number")


def open_source(options: argparse.Namespace) -> FaceDetector | Landmarks:
    """Open the detector, or read the file of landmarks."""
    if options.landmarks is not None:
        return read_landmarks(options.landmarks)
    return open_detector(chosen_detector(options))


def chosen_detector(options: argparse.Namespace) -> DetectorChoice:
    """Return the detector that the options name."""
    return DetectorChoice(options.detector or MTCNN, options.detector_weights)
