# SPDX-License-Identifier: Apache-2.0
"""Subcommands ``templates ijbb`` and ``templates ijbc``: 1:1 and 1:N of the IJB protocols."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.commands.device import find_cut_off_check
from evaluation.commands.embed import open_embedder
from evaluation.commands.embedding_sources import add_source_options, check_source
from evaluation.commands.image_rows import embed_in_batches
from evaluation.commands.reports import (
    add_report_options,
    check_report_options,
    parse_ranks,
    parse_rates,
    rate_table,
    roc_table,
    write_report,
)
from evaluation.embedding_files import Embeddings, find_rows, read_embeddings
from evaluation.face_crops import crop_face
from evaluation.identification import FPIRS, RANKS
from evaluation.image_files import ImageFileError, ReadImage, read_photograph
from evaluation.protocols.ijb import (
    IjbLists,
    Variant,
    all_variants,
    evaluate_variant,
    read_protocol,
)
from evaluation.protocols.ijb_lists import Faces, find_meta, read_faces
from evaluation.roc import FARS
from evaluation.row_sources import read_all_finite_rows, select_rows
from launch.config.paths import expand_home

if TYPE_CHECKING:
    from evaluation.tables import Table

HELP = "IJB-B or IJB-C in InsightFace's layout: TAR at FAR, rank-k, TPIR at FPIR"
BOTH = ("1:1", "1:N")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommands."""
    parser.add_argument(
        "folder",
        type=expand_home,
        metavar="FOLDER",
        help="folder that contains meta and loose_crop, directly or in a folder IJBB or IJBC",
    )
    add_source_options(parser)
    parser.add_argument(
        "--embeddings",
        type=expand_home,
        metavar="FILE",
        help="file of embeddings: one row for each face in the order of the lists, or rows in any "
        "order with the names of the images",
    )
    parser.add_argument(
        "--protocols", nargs="+", choices=BOTH, default=list(BOTH), help="protocols (default: both)"
    )
    parser.add_argument(
        "--unit-length",
        action="store_true",
        help="scale the embedding of each face to length 1 (N1; default: keep the length, N0)",
    )
    parser.add_argument(
        "--no-detector-score",
        action="store_true",
        help="do not multiply each embedding by the detector score (D0; default: multiply, D1)",
    )
    parser.add_argument(
        "--grid",
        action="store_true",
        help="compute all combinations of N0 or N1 with D0 or D1; if the embeddings of the mirror "
        "images are available, also with F0 (without them) and F1 (with them added)",
    )
    parser.add_argument(
        "--fars",
        nargs="+",
        type=float,
        default=list(FARS),
        metavar="FAR",
        help="false accept rates of 1:1",
    )
    parser.add_argument(
        "--fpirs",
        nargs="+",
        type=float,
        default=list(FPIRS),
        metavar="FPIR",
        help="false positive identification rates of 1:N",
    )
    parser.add_argument(
        "--ranks",
        nargs="+",
        type=int,
        default=list(RANKS),
        metavar="K",
        help="ranks K for the rank-K rates of 1:N",
    )
    add_report_options(parser)


def run(options: argparse.Namespace) -> None:
    """Compute the rates of IJB-B or IJB-C; print tables, and write the requested files."""
    check_source(options, options.embeddings, flips_apart=True)
    check_report_options(options)
    rates = {
        "fars": parse_rates("--fars", options.fars),
        "fpirs": parse_rates("--fpirs", options.fpirs),
        "ranks": parse_ranks("--ranks", options.ranks, highest=1_000_000),
    }
    subset = options.protocol
    meta = find_meta(options.folder, subset)
    faces = read_faces(meta, subset)
    lists = read_protocol(meta, subset, faces, options.protocols)
    if options.embeddings:
        found = read_embeddings(options.embeddings)
        flips = choose_flips(options, known=found.mirrored is not None)
        plain, mirrored = _read_faces(found, faces, meta)
    else:
        flips = choose_flips(options, known=True)
        plain, mirrored = _embed_faces(options, faces, meta.parent / "loose_crop", True in flips)
    results = _evaluate(options, lists, plain, mirrored, flips, rates)
    tables = _tables(subset, lists, results, rates)
    write_report(options, {"protocol": subset, "faces": len(faces), "variants": results}, tables)


def choose_flips(options: argparse.Namespace, known: bool) -> list[bool | None]:
    """Return the values of `Variant.flip` to compute, False before True.

    [None] means that the embeddings are used as they are, because it is unknown whether those of
    the mirror images are already added.

    Parameters
    ----------
    known
        Whether the embeddings of the mirror images are available as a separate array.
    """
    if not known:
        if options.no_flip:
            raise ValueError(
                f"--no-flip: cannot leave the mirror images out of {options.embeddings}, got one "
                "array, in which image and mirror image may already be added; omit --no-flip, or "
                "give a file with two arrays"
            )
        return [None]
    if options.no_flip:
        return [False]
    return [False, True] if options.grid else [True]


def _evaluate(
    options: argparse.Namespace,
    lists: IjbLists,
    plain: np.ndarray,
    mirrored: np.ndarray | None,
    flips: Sequence[bool | None],
    rates: dict[str, Any],
) -> dict[str, Any]:
    """Return a dict from the name of each variant to its rates."""
    only = Variant(options.unit_length, not options.no_detector_score)
    results: dict[str, Any] = {}
    for flip in flips:
        if flip and mirrored is not None:
            plain += mirrored  # In place: there may be gigabytes of embeddings.
        variants = all_variants([flip]) if options.grid else [replace(only, flip=flip)]
        for variant in variants:
            results[variant.name] = evaluate_variant(lists, plain, variant, **rates)
    return dict(sorted(results.items()))


def _read_faces(
    found: Embeddings, faces: Faces, meta: Path
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the embeddings of the faces and, if the file has them, of their mirror images."""
    rows = find_rows(found, faces.names, meta)
    plain = read_all_finite_rows(select_rows(found.rows, rows))
    if found.norms is not None:
        plain *= found.norms[rows].astype(np.float32)[:, None]
    if found.mirrored is None:
        return plain, None
    return plain, read_all_finite_rows(select_rows(found.mirrored, rows))


def _embed_faces(
    options: argparse.Namespace, faces: Faces, folder: Path, mirrored: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Compute the embeddings of the aligned faces and, if `mirrored`, of their mirror images."""
    for name in faces.names:
        if not (folder / name).is_file():
            raise ImageFileError(
                f"{folder / name}: must be an image file, got no such file; unpack the images again"
            )
    embedder = open_embedder(options, flip=False)
    cut_off = find_cut_off_check()

    def read(index: int) -> ReadImage:
        image = read_photograph(folder / faces.names[index], cut_off)
        if image.pixels is None:
            return image
        pixels = crop_face(image.pixels, faces.landmarks[index], embedder.image_size)
        if pixels is None:
            return ReadImage(image.path, None, "must have five different landmarks, got one point")
        return ReadImage(image.path, pixels, "")

    found = np.empty((1 + mirrored, len(faces), embedder.embedding_size), np.float32)
    for start, rows in embed_in_batches(embedder, read, len(faces), "faces", mirrored=mirrored):
        found[:, start : start + rows.shape[-2]] = rows
    return found[0], found[1] if mirrored else None


def _tables(
    subset: str, lists: IjbLists, results: dict[str, Any], rates: dict[str, Any]
) -> list[Table]:
    name = {"ijbb": "IJB-B", "ijbc": "IJB-C"}[subset]
    tables = []
    first = next(iter(results.values()))
    if lists.pairs is not None:
        counts = first["verification"]
        title = (
            f"{name} 1:1, {counts['genuine_pairs']} genuine and {counts['impostor_pairs']} "
            "impostor pairs"
        )
        rocs = {variant: result["verification"]["roc"] for variant, result in results.items()}
        tables.append(roc_table(title, rocs))
    if lists.probes is not None:
        keys = _rate_keys(rates)
        for gallery in first["identification"]:
            found = {v: result["identification"][gallery] for v, result in results.items()}
            tables.append(rate_table(f"{name} 1:N, gallery {gallery}", found, keys))
    return tables


def _rate_keys(rates: dict[str, Sequence[float]]) -> list[str]:
    ranks = [f"rank_{rank}" for rank in rates["ranks"]]
    return ranks + [f"tpir_at_fpir_{fpir:g}" for fpir in rates["fpirs"]]
