# SPDX-License-Identifier: Apache-2.0
"""Turn the options of a command into a plan for aligning photographs."""

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
    """Turn the options of `alignment.options` into a plan for aligning photographs.

    With the option ``--landmarks``, the function reads the points of the faces from that file.
    Without this option, it checks that the detector is available.

    Parameters
    ----------
    options
        Options of the command.
    paths
        Paths, relative to ``folder``, of the photographs whose points are unknown.  If there are
        none, the function does not open the detector or the file of points.

    Outputs
    -------
    The plan, and a dictionary of JSON values that identifies the plan.  If the dictionaries of two
    plans are equal, both plans align a photograph to the same image.

    Raises
    ------
    ValueError
        If an option is invalid, if the detector is missing, or if the file of points names none of
        the photographs.
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
            f"got no points for any of the {len(paths)} files, such as {printable(paths[0])}; "
            f"correct the paths in {printable(file)}"
        )
    return landmarks
