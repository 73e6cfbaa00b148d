# SPDX-License-Identifier: Apache-2.0
"""Embeddings of listed images: from a file of embeddings, or computed with a model."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.commands.embed import open_embedder
from evaluation.commands.image_rows import check_images, embed_files
from evaluation.commands.options import add_model_options, check_batch_size
from evaluation.embedding_files import find_rows, is_embedding_file, read_embeddings
from evaluation.image_files import find_images
from evaluation.row_sources import ArrayRows, RowSource, select_rows

if TYPE_CHECKING:
    from interchange.embedder import Embedder


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of an optional model that computes embeddings."""
    add_model_options(parser, required=False)
    parser.add_argument(
        "--resize",
        action="store_true",
        help="with --model: resize aligned faces of other sizes to the image size of the model",
    )
    parser.add_argument(
        "--no-flip",
        action="store_true",
        help="with --model: do not add the embedding of the mirror image",
    )


def open_model(options: argparse.Namespace) -> Embedder:
    """Load the model that the options name."""
    return open_embedder(options, flip=not options.no_flip)


def check_source(
    options: argparse.Namespace, embeddings: str | None, *, flips_apart: bool = False
) -> None:
    """Raise ValueError unless exactly one of a model and a file of embeddings is given.

    Also raise ValueError if the batch size is below 1, or if there is no model and an option is
    given that needs one.

    Parameters
    ----------
    flips_apart
        Whether the file may hold the embeddings of the mirror images as a separate array.  The
        option ``--no-flip`` is then allowed without a model.
    """
    check_batch_size(options.batch_size)
    if (options.model is None) == (embeddings is None):
        got = "neither" if embeddings is None else "both"
        raise ValueError(
            f"--embeddings: either --embeddings or --model must be given, got {got}; give one of "
            "them"
        )
    refuse_without_model(options, ("no_flip",) * (not flips_apart))


def refuse_without_model(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Raise ValueError if an option that needs a model is given without ``--model``.

    Parameters
    ----------
    names
        Options to check; ``resize`` and ``images`` are always checked.
    """
    for name in ("resize", "images", *names):
        if options.model is None and getattr(options, name, None):
            raise ValueError(
                f"--{name.replace('_', '-')}: concerns images that a model embeds, got no --model; "
                "omit the option, or give --model MODEL"
            )


def listed_rows(
    embeddings: str | os.PathLike[str],
    names: Sequence[str],
    listing: str | os.PathLike[str],
) -> RowSource:
    """Return the embeddings of the images ``names`` from a file, in the order of ``names``.

    `find_rows` finds the row of each image.  ``listing`` is the file or folder that lists the
    images; error messages name it.
    """
    found = read_embeddings(embeddings)
    return select_rows(found.rows, find_rows(found, names, listing))


def embed_listed(
    embedder: Embedder,
    folder: str | os.PathLike[str],
    names: Sequence[str],
    *,
    resize: bool,
    title: str,
) -> RowSource:
    """Compute the embeddings of the images in a folder that have these names.

    ``title`` names the images in the progress bar.
    """
    paths = [Path(folder) / name for name in names]
    rows = embed_files(embedder, paths, resize=resize, name=title)
    return ArrayRows(rows, os.fspath(folder), list(names))


def check_listed(
    embedder: Embedder, folder: str | os.PathLike[str], names: Sequence[str], resize: bool
) -> None:
    """Check that the images of `embed_listed` exist.

    Unless ``resize`` is true, also check that they have the image size of the model.
    """
    check_images([Path(folder) / name for name in names], embedder, resize)


def rows_of_entry(
    entry: str, embedder: Embedder | None, *, resize: bool, title: str
) -> tuple[RowSource, list[str] | None]:
    """Return the embeddings and names of images, from a file of embeddings or a folder of images.

    The names are None for a file of embeddings without names.

    Parameters
    ----------
    entry
        File of embeddings, or folder of images.
    embedder
        Model for a folder of images; None if there is no model.
    title
        Name of the images in the progress bar.

    Raises
    ------
    ValueError
        If the entry is a folder and there is no model.
    """
    if is_embedding_file(entry) or embedder is None:
        if not is_embedding_file(entry):
            raise ValueError(
                f"{entry}: a folder of images needs --model, got no --model; give --model MODEL, "
                "or name a file of embeddings"
            )
        found = read_embeddings(entry)
        return found.rows, None if found.names is None else [str(n) for n in found.names]
    paths = find_images([entry])
    names = [str(path) for path in paths]
    rows = embed_files(embedder, paths, resize=resize, name=title)
    return ArrayRows(rows, entry, [str(path.relative_to(entry)) for path in paths]), names
