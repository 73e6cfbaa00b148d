# SPDX-License-Identifier: Apache-2.0
"""Command ``embed``: write the embeddings of image files to an .npz file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atomic_write import atomic_write
from evaluation.commands.device import choose_device, find_cut_off_check
from evaluation.commands.options import add_model_options, check_batch_size, check_output_file
from evaluation.commands.photographs import add_align_options, make_fit, open_points
from evaluation.commands.progress import Progress
from evaluation.image_files import (
    FitImage,
    ImageFileError,
    check_sizes,
    find_images,
    read_images,
)
from launch.config.paths import expand_home

if TYPE_CHECKING:
    from interchange.embedder import Embedder

HELP = "write the embeddings of image files to an .npz file"
MAX_NAMED_FILES = 20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_options(parser)
    parser.add_argument(
        "images",
        nargs="+",
        type=expand_home,
        metavar="IMAGE|FOLDER",
        help="image files of aligned faces, or folders, which are searched with their subfolders; "
        "with --align, the images are photographs",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=expand_home,
        metavar="FILE.npz",
        help="file to write: names (N,), embeddings (N, E) float32 of unit length, and norms (N,), "
        "the lengths of the embeddings before normalisation (with --flip, half the length of the "
        "sum of the two embeddings)",
    )
    add_image_options(parser)
    parser.add_argument(
        "--flip",
        action="store_true",
        help="add the embedding of the mirror image, as the command verify does",
    )
    parser.add_argument(
        "--strict", action="store_true", help="write nothing if a file is not a readable image"
    )


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add the options ``--resize`` and ``--align``, and the other options of alignment."""
    parser.add_argument(
        "--resize",
        action="store_true",
        help="resize images of aligned faces to the image size of the model",
    )
    add_align_options(parser)


def run(options: argparse.Namespace) -> None:
    """Embed image files, and write their embeddings."""
    check_batch_size(options.batch_size)
    check_output_file("--out", options.out)
    # Importing MXNet takes seconds.  Find the files first, so that a wrong path fails at once.
    paths = find_images(options.images)
    points = open_points(options)
    embedder = open_embedder(options, flip=options.flip)
    fit = make_fit(points, options, embedder.image_size)
    if not options.resize and fit is None:
        check_sizes(paths, embedder.image_size)
    names, embeddings, norms = _embed_files(embedder, paths, options, fit)
    with atomic_write(options.out) as file:
        np.savez(file, names=names, embeddings=embeddings, norms=norms)
    print(f"{options.out}: {len(names)} embeddings of {embeddings.shape[1]} dimensions")


def open_embedder(options: argparse.Namespace, flip: bool) -> Embedder:
    """Load an embedder with the model of ``--model``; print each of its notices on stderr."""
    from interchange.embedder import load_embedder

    device = choose_device(options.device).device_type
    embedder = load_embedder(options.model, flip=flip, batch_size=options.batch_size, device=device)
    for notice in embedder.notices:
        print(f"evaluation: {notice}", file=sys.stderr)
    return embedder


def _embed_files(
    embedder: Embedder, paths: Sequence[Path], options: argparse.Namespace, fit: FitImage | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embed image files in batches; return names (N,), embeddings (N, E) and norms (N,)."""
    names: list[str] = []
    raw: list[np.ndarray] = []
    unreadable: list[str] = []
    with Progress() as progress:
        for batch_names, pixels in _batches(embedder, paths, options, fit, unreadable):
            names += batch_names
            raw.append(embedder.raw_embeddings(pixels))
            progress("images", len(names) + len(unreadable), len(paths))
    _report(unreadable, len(paths), options.strict)
    sums = np.concatenate(raw)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))
    if len(bad):
        raise ImageFileError(
            f"{names[bad[0]]}: the embedding cannot be normalised, got L2 norm {norms[bad[0], 0]}; "
            "check the weights of the model"
        )
    return np.array(names), sums / norms, norms[:, 0] / (2 if embedder.flip else 1)


def _batches(
    embedder: Embedder,
    paths: Sequence[Path],
    options: argparse.Namespace,
    fit: FitImage | None,
    unreadable: list[str],
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield the names and the pixels of each batch.

    For each unreadable file, append a text "path: reason" to ``unreadable``.
    """
    names: list[str] = []
    pixels: list[np.ndarray] = []
    images = read_images(
        paths,
        embedder.image_size,
        resize=options.resize,
        cut_off=find_cut_off_check(),
        fit=fit,
    )
    for image in images:
        if image.pixels is None:
            unreadable.append(f"{image.path}: {image.reason}")
            continue
        names.append(str(image.path))
        pixels.append(image.pixels)
        if len(names) == options.batch_size:
            yield names, np.stack(pixels)
            names, pixels = [], []
    if names:
        yield names, np.stack(pixels)


def _report(unreadable: Sequence[str], count: int, strict: bool) -> None:
    """Print the unreadable files on stderr.

    Raise ImageFileError if all files are unreadable, or if ``strict`` is true and one is.
    """
    for line in unreadable[:MAX_NAMED_FILES]:
        print(f"evaluation: skipped {line}", file=sys.stderr)
    if len(unreadable) > MAX_NAMED_FILES:
        rest = len(unreadable) - MAX_NAMED_FILES
        print(f"evaluation: skipped {rest} further unreadable files", file=sys.stderr)
    if len(unreadable) == count or (unreadable and strict):
        raise ImageFileError(
            f"images: the files must be readable images, got {len(unreadable)} unreadable of "
            f"{count} files; remove the unreadable files, or make them again"
        )
    if unreadable:
        print(f"skipped {len(unreadable)} unreadable of {count} files")
