# SPDX-License-Identifier: Apache-2.0
"""Read how a command aligns photographs: the plan, and the values that identify the plan."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.detector import require_detector
from alignment.landmark_files import Landmarks, read_landmarks
from alignment.options import chosen_detector, read_rules
from alignment.plan import AlignmentPlan
from launch.config.printable_text import printable
from pipeline.records.remote import hash_file


def read_alignment(
    options: argparse.Namespace, paths: Sequence[str], folder: Path
) -> tuple[AlignmentPlan, dict[str, Any]]:
    """Check the options of `alignment.options`; read the points or check the detector.

    Parameters
    ----------
    options
        Options of the command.
    paths
        Photographs without given points, relative to ``folder``; without any, no detector and no
        file is opened.

    Outputs
    -------
    The plan, and a dictionary of JSON values.  Equal dictionaries mean equal aligned images.

    Raises
    ------
    ValueError
        If an option is invalid, the detector is missing, or the file has no point of any path.
    """
    rules = read_rules(options)
    settings = rules._asdict()
    if not paths:
        return AlignmentPlan(rules=rules), {"points": "list", **settings}
    if options.landmarks is not None:
        landmarks = _read_points(options.landmarks, paths, folder)
        settings["points"] = hash_file(options.landmarks).hexdigest()
        return AlignmentPlan(landmarks, rules=rules), settings
    detector = chosen_detector(options)
    require_detector(detector)
    settings["points"] = detector.name
    if detector.weights is not None:
        settings["points"] += f" {hash_file(detector.weights).hexdigest()}"
    return AlignmentPlan(detector=detector, rules=rules), settings


def _read_points(file: Path, paths: Sequence[str], folder: Path) -> Landmarks:
    landmarks = read_landmarks(file)
    if all(landmarks.find(path) is None for path in paths):
        raise ValueError(
            f"--landmarks: {printable(file)} must give points of the files in {printable(folder)}, "
            f"got points of none of the {len(paths)} files, such as {printable(paths[0])}; correct "
            f"the paths in {printable(file)}"
        )
    return landmarks
