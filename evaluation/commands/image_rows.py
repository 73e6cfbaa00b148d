# SPDX-License-Identifier: Apache-2.0
"""Compute the embeddings of listed image files with a model; every file must be readable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluation.commands.device import find_cut_off_check
from evaluation.commands.progress import Progress
from evaluation.image_files import (
    ImageFileError,
    ReadImage,
    check_sizes,
    map_in_threads,
    read_image,
)

if TYPE_CHECKING:
    from interchange.embedder import Embedder

Read = Callable[[int], ReadImage]
"""Function from the index of an image to the image, in the image size of the model."""


def check_images(paths: Sequence[Path], embedder: Embedder, resize: bool) -> None:
    """Raise ImageFileError if an image is missing.

    If `resize` is False, also raise the error if an image does not have the size of the model.
    """
    for path in paths:
        if not path.is_file():
            got = "a folder or a special file" if path.exists() else "no such file"
            raise ImageFileError(f"{path}: must be an image file, got {got}; correct the lists")
    if not resize:
        check_sizes(paths, embedder.image_size)


def embed_files(
    embedder: Embedder, paths: Sequence[Path], *, resize: bool, name: str
) -> np.ndarray:
    """Return the embeddings of image files, not normalised, (len(paths), E) float32.

    Parameters
    ----------
    resize
        Whether to resize images of other sizes to the image size of the model.
    name
        Name of the images in the progress bar.
    """
    check_images(paths, embedder, resize)
    cut_off = find_cut_off_check()

    def read(index: int) -> ReadImage:
        return read_image(paths[index], embedder.image_size, resize, cut_off)

    found = np.empty((len(paths), embedder.embedding_size), np.float32)
    for start, rows in embed_in_batches(embedder, read, len(paths), name):
        found[start : start + len(rows)] = rows
    return found


def embed_in_batches(
    embedder: Embedder, read: Read, count: int, name: str, mirrored: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """Embed `count` images; yield for each batch the index of its first image and its embeddings.

    Parameters
    ----------
    read
        Function that reads the image with an index from 0 to `count` - 1.
    name
        Name of the images in the progress bar.
    mirrored
        Also embed the mirror images.

    Outputs
    -------
    The embeddings of a batch of B images are float32 (B, E), not normalised.  If `mirrored` is
    true, they are (2, B, E): first those of the images, then those of their mirror images.

    Raises
    ------
    ImageFileError
        If an image is unreadable, or an embedding is 0 or not finite.
    """
    images = map_in_threads(read, range(count))
    batch: list[np.ndarray] = []
    paths: list[Path] = []
    with Progress() as progress:
        for number, image in enumerate(images, 1):
            if image.pixels is None:
                raise ImageFileError(
                    f"{image.path}: {image.reason}; correct the image or the list, because all "
                    "listed images are needed"
                )
            batch.append(image.pixels)
            paths.append(image.path)
            if len(batch) == embedder.batch_size or number == count:
                rows = _embed(embedder, np.stack(batch), mirrored)
                _check_lengths(rows, paths)
                yield number - len(batch), rows
                progress(name, number, count)
                batch, paths = [], []


def _embed(embedder: Embedder, pixels: np.ndarray, mirrored: bool) -> np.ndarray:
    rows = embedder.raw_embeddings(pixels)
    if not mirrored:
        return rows
    return np.stack([rows, embedder.raw_embeddings(np.ascontiguousarray(pixels[:, :, ::-1]))])


def _check_lengths(rows: np.ndarray, paths: Sequence[Path]) -> None:
    lengths = np.linalg.norm(rows, axis=-1)
    bad = np.argwhere(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise ImageFileError(
            f"{paths[bad[0][-1]]}: the embedding cannot be normalised, got L2 norm "
            f"{lengths[tuple(bad[0])]}; check the weights of the model"
        )
