# SPDX-License-Identifier: Apache-2.0
"""Option ``--align``: align the faces of photographs to the image size of a model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from alignment.aligner import STATUSES, FaceAligner
from alignment.detector import FaceDetector
from alignment.landmark_files import Landmarks
from alignment.options import (
    add_alignment_options,
    open_source,
    read_rules,
    refuse_options_without,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from evaluation.image_files import FitImage

PointSource = FaceDetector | Landmarks


def add_align_options(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--align`` and the options of alignment."""
    parser.add_argument(
        "--align",
        action="store_true",
        help="the images are photographs: find the face of each one and align it to the image size "
        "of the model, as python -m tools.data align does with the same options",
    )
    add_alignment_options(parser)


def open_points(options: argparse.Namespace) -> PointSource | None:
    """Check the options of alignment; open and return the detector or the file of landmarks.

    Return None without ``--align``.

    Raises
    ------
    ValueError
        If an option is invalid or requires ``--align``, or if a package is missing.
    """
    if not options.align:
        refuse_options_without("--align", options)
        return None
    if options.resize:
        raise ValueError(
            "--resize: is for faces that are aligned already, got --align as well; omit --resize"
        )
    read_rules(options)
    return open_source(options)


def make_fit(
    source: PointSource | None, options: argparse.Namespace, image_size: tuple[int, int]
) -> FitImage | None:
    """Return a function that aligns photographs to the image size; None if `source` is None.

    If a photograph is rejected, the returned function returns the reason instead of pixels.

    Parameters
    ----------
    source
        Detector or landmarks that `open_points` has returned.
    image_size
        (height, width) of the aligned images in pixels.
    """
    if source is None:
        return None
    aligner = FaceAligner(source, image_size, read_rules(options))

    def fit(path: Path, pixels: np.ndarray) -> np.ndarray | str:
        found = aligner.align(path, pixels)
        if found.pixels is None:
            return f"cannot be aligned, got a photograph {STATUSES[found.status]}"
        return found.pixels

    return fit
