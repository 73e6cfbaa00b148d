# SPDX-License-Identifier: Apache-2.0
"""Command ``compare-images``: print the cosine of two images, and whether they show one person."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from evaluation.commands.device import find_cut_off_check
from evaluation.commands.embed import add_image_options, open_embedder
from evaluation.commands.options import add_model_options, check_batch_size
from evaluation.commands.photographs import make_fit, open_points
from evaluation.image_files import ImageFileError, find_images, read_image
from launch.config.paths import expand_home

HELP = "print the cosine of two images, and whether they show one person"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_options(parser)
    parser.add_argument(
        "images",
        nargs=2,
        type=expand_home,
        metavar="IMAGE",
        help="image of an aligned face; with --align, a photograph",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="COSINE",
        help="smallest cosine at which two images count as one person (default: the threshold that "
        "is stored with the model)",
    )
    add_image_options(parser)


def run(options: argparse.Namespace) -> None:
    """Print the cosine of two images, and whether they show one person."""
    check_batch_size(options.batch_size)
    if options.threshold is not None and not -1 <= options.threshold <= 1:
        raise ValueError(
            f"--threshold: must be a cosine from -1 to 1, got {options.threshold}; omit the option "
            "to use the threshold that is stored with the model"
        )
    for entry in options.images:
        if Path(entry).is_dir():
            raise ImageFileError(f"{entry}: must be an image file, got a folder; name one file")
        find_images([entry])
    points = open_points(options)
    # flip=True: the stored threshold was selected on sums of the embeddings of an image and of its
    # mirror image.
    embedder = open_embedder(options, flip=True)
    fit = make_fit(points, options, embedder.image_size)
    cut_off = find_cut_off_check()
    pixels = []
    for entry in options.images:
        image = read_image(Path(entry), embedder.image_size, options.resize, cut_off, fit=fit)
        if image.pixels is None:
            advice = "name a readable image file" if fit is None else "name another photograph"
            raise ImageFileError(f"{entry}: {image.reason}; {advice}")
        pixels.append(image.pixels)
    one, two = embedder(np.stack(pixels))
    cosine = float(np.clip(one @ two, -1, 1))
    print(f"cosine {cosine:.4f}")
    stored = options.threshold is None
    threshold = embedder.threshold if stored else options.threshold
    if threshold is None:
        print(
            "evaluation: no threshold is stored with the model, so there is no decision; pass "
            "--threshold COSINE",
            file=sys.stderr,
        )
        return
    verdict = "same person" if cosine >= threshold else "different people"
    origin = "stored with the model" if stored else "from --threshold"
    print(f"{verdict} (threshold {threshold:.4f}, {origin})")
