# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``templates list``: images and videos of a list (iQIYI-VID, Trillion Pairs)."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.all_pairs import evaluate_all_pairs
from evaluation.commands.embedding_sources import add_source_options, check_source
from evaluation.commands.options import check_output_file
from evaluation.commands.reports import (
    add_report_options,
    check_report_options,
    parse_rates,
    roc_table,
    write_report,
)
from evaluation.commands.video_sources import embed_entries
from evaluation.opencv_matrices import write_features
from evaluation.protocols.video_lists import (
    FARS,
    read_entries,
    read_labelled_pairs,
    read_people,
)
from evaluation.roc import roc_points
from evaluation.templates import score_pairs
from launch.config.paths import expand_home

HELP = "lists of images and videos: TAR at FAR, and the file of a challenge submission"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument(
        "list",
        type=expand_home,
        metavar="LIST",
        help="text file such as filelist.txt: one image or one folder of frames per line, relative "
        "to the folder of the file",
    )
    add_source_options(parser)
    parser.add_argument(
        "--embeddings",
        type=expand_home,
        metavar="FILE",
        help="file of embeddings: rows with the names of the images and frames; or, without names, "
        "one row per line of LIST",
    )
    parser.add_argument(
        "--images",
        type=expand_home,
        metavar="FOLDER",
        help="with --model: folder of the images (default: the folder of LIST)",
    )
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument(
        "--people",
        type=expand_home,
        metavar="FILE",
        help="score all pairs of entries; each line of FILE names the person of one entry, or is "
        '"-" if the person is unknown',
    )
    labels.add_argument(
        "--pairs",
        type=expand_home,
        metavar="FILE",
        help="score the pairs in FILE; a line has two entries, then 1 for one person or 0 for two",
    )
    parser.add_argument(
        "--fars",
        nargs="+",
        type=float,
        default=list(FARS),
        metavar="FAR",
        help="false accept rates",
    )
    parser.add_argument(
        "--write-features",
        type=expand_home,
        metavar="FILE.bin",
        help="write the embeddings of the entries as one OpenCV matrix, the format of submissions",
    )
    add_report_options(parser)


def run(options: argparse.Namespace) -> None:
    """Embed the entries of a list; print the rates, and write the requested files."""
    check_source(options, options.embeddings)
    check_report_options(options)
    check_output_file("--write-features", options.write_features)
    if not (options.people or options.pairs or options.write_features):
        raise ValueError(
            "--people: there must be something to compute, got none of --people, --pairs and "
            "--write-features; give one of them"
        )
    fars = parse_rates("--fars", options.fars)
    entries = read_entries(options.list)
    people = read_people(options.people, len(entries)) if options.people else None
    pairs = read_labelled_pairs(options.pairs, entries) if options.pairs else None
    folder = Path(options.images or Path(options.list).parent)
    embeddings = embed_entries(options, folder, entries)
    if options.write_features:
        write_features(options.write_features, embeddings)
        print(f"{options.write_features}: {len(entries)} embeddings")
    result: dict[str, Any] | None = None
    if people is not None:
        result = evaluate_all_pairs(embeddings, people, fars, options.people)
    elif pairs is not None:
        result = _evaluate_pairs(embeddings, pairs, fars)
    if result is None:
        return
    title = (
        f"{len(entries)} entries, {result['genuine_pairs']} genuine and "
        f"{result['impostor_pairs']} impostor pairs"
    )
    table = roc_table(title, {Path(options.list).name: result["roc"]})
    write_report(options, {"protocol": "list", "entries": len(entries), **result}, [table])


def _evaluate_pairs(
    embeddings: np.ndarray, pairs: tuple[np.ndarray, np.ndarray, np.ndarray], fars: list[float]
) -> dict[str, Any]:
    first, second, same = pairs
    scores = score_pairs(embeddings, first, second)
    impostors = np.sort(scores[~same])[::-1]
    points = roc_points(scores[same], impostors, len(impostors), fars)
    return {
        "genuine_pairs": int(same.sum()),
        "impostor_pairs": len(impostors),
        "roc": [asdict(point) for point in points],
    }
