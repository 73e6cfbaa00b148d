# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``templates ytf``: pairs of videos of YouTube Faces in ten folds."""

from __future__ import annotations

import argparse
from pathlib import Path

from evaluation.commands.embedding_sources import add_source_options, check_source
from evaluation.commands.reports import (
    add_report_options,
    check_report_options,
    roc_table,
    write_report,
)
from evaluation.commands.video_sources import embed_entries
from evaluation.protocols.youtube_faces import evaluate_video_pairs, read_splits
from evaluation.tables import Table, format_rate
from launch.config.paths import expand_home

HELP = "YouTube Faces: accuracy of pairs of videos over ten folds, and TAR at FAR"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument(
        "splits", type=expand_home, metavar="SPLITS", help="splits.txt or splits_corrected.txt"
    )
    add_source_options(parser)
    parser.add_argument(
        "--embeddings",
        type=expand_home,
        metavar="FILE",
        help="file of embeddings of the frames; the name of each frame must end with "
        "person/number/frame, where person/number is the name of the video",
    )
    parser.add_argument(
        "--images",
        type=expand_home,
        metavar="FOLDER",
        help="with --model: folder of the aligned frames person/number/frame (default: the folder "
        "of SPLITS)",
    )
    add_report_options(parser)


def run(options: argparse.Namespace) -> None:
    """Compute the rates of YouTube Faces; print tables, and write the requested files."""
    check_source(options, options.embeddings)
    check_report_options(options)
    pairs = read_splits(options.splits)
    folder = Path(options.images or Path(options.splits).parent)
    result = evaluate_video_pairs(pairs, embed_entries(options, folder, pairs.videos))
    accuracy = f"{format_rate(result['accuracy'])} ± {format_rate(result['accuracy_std'])}"
    title = f"YouTube Faces: {result['pairs']} pairs, {result['folds']} folds"
    row = [accuracy, f"{result['threshold']:.4f}"]
    tables = [
        Table(
            title,
            ["", "accuracy [%]", "threshold (cosine)"],
            [[f"{result['videos']} videos", *row]],
        ),
        roc_table(title, {"all pairs": result["roc"]}),
    ]
    write_report(options, {"protocol": "ytf", **result}, tables)
