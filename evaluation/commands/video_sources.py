# SPDX-License-Identifier: Apache-2.0
"""Embeddings of listed videos and images: from a file of embeddings, or computed with a model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.commands.device import find_cut_off_check
from evaluation.commands.embedding_sources import open_model
from evaluation.commands.image_rows import check_images, embed_in_batches
from evaluation.embedding_files import read_embeddings
from evaluation.image_files import ImageFileError, ReadImage, find_images, read_image
from evaluation.protocols.video_lists import assign_frames, is_image
from evaluation.row_sources import RowError, read_all_unit_rows
from evaluation.template_sums import TemplateSums, add_rows


def embed_entries(options: argparse.Namespace, folder: Path, entries: Sequence[str]) -> np.ndarray:
    """Return the embedding of each entry: of an image, or the mean over the frames in a folder.

    Parameters
    ----------
    options
        Parsed options: ``--embeddings``, or ``--model`` with the other options of a model.
    folder
        Folder that contains the entries; unused with ``--embeddings``.
    entries
        V relative paths.

    Outputs
    -------
    (V, E) float32 of unit length.
    """
    if options.embeddings:
        return _read_entries(options.embeddings, entries)
    # Importing MXNet takes seconds.  Find the files first, so that a missing file fails at once.
    paths: list[Path] = []
    owners: list[int] = []
    for index, entry in enumerate(entries):
        frames = [folder / entry] if is_image(entry) else find_images([folder / entry])
        paths += frames
        owners += [index] * len(frames)
    embedder = open_model(options)
    check_images(paths, embedder, options.resize)
    sums = TemplateSums(len(entries), embedder.embedding_size)
    numbers = np.array(owners)
    cut_off = find_cut_off_check()

    def read(index: int) -> ReadImage:
        return read_image(paths[index], embedder.image_size, options.resize, cut_off)

    for start, rows in embed_in_batches(embedder, read, len(paths), "frames"):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        sums.add(unit, numbers[start : start + len(rows)])
    return _finish(sums, entries, str(folder))


def _read_entries(path: str, entries: Sequence[str]) -> np.ndarray:
    found = read_embeddings(path)
    if found.names is None:
        if len(found) != len(entries):
            raise RowError(
                f"{path}: must have one row for each of the {len(entries)} entries of the list, or "
                f"the names of the frames, got {len(found)} rows; compute the embeddings again"
            )
        return read_all_unit_rows(found.rows)
    sums = TemplateSums(len(entries), found.rows.dimensions)
    add_rows(sums, found.rows, assign_frames(found.names, entries))
    return _finish(sums, entries, path)


def _finish(sums: TemplateSums, entries: Sequence[str], where: str) -> np.ndarray:
    empty = np.flatnonzero(sums.sizes == 0)
    if len(empty):
        raise ImageFileError(
            f"{where}: every entry of the list must have an image, got none for "
            f"{entries[empty[0]]!r} ({len(empty)} of {len(entries)} entries have none); add the "
            "images"
        )
    return sums.unit_templates(lambda index: f"{where}: {entries[index]}")
