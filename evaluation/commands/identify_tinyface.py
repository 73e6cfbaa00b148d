# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``identify tinyface``: low-resolution probes in a gallery with distractors."""

from __future__ import annotations

import argparse

from evaluation.commands.embedding_sources import (
    add_source_options,
    check_listed,
    check_source,
    embed_listed,
    listed_rows,
    open_model,
)
from evaluation.commands.options import add_rank_option
from evaluation.commands.reports import (
    add_report_options,
    check_report_options,
    parse_ranks,
    rate_table,
    write_report,
)
from evaluation.identification import rank_probes, summarize_ranking
from evaluation.protocols.tinyface import RANKS, TinyFaceLists, read_tinyface
from evaluation.row_sources import RowSource, read_all_unit_rows
from launch.config.paths import expand_home

HELP = "TinyFace: rank-k and mean average precision in a gallery with distractors"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument(
        "folder", type=expand_home, metavar="FOLDER", help="folder Testing_Set of TinyFace"
    )
    add_source_options(parser)
    parser.add_argument(
        "--embeddings",
        type=expand_home,
        metavar="FILE.npz",
        help="file of `python -m evaluation embed` with the embeddings of the images in the "
        "folders Probe, Gallery_Match and Gallery_Distractor",
    )
    parser.add_argument(
        "--images",
        type=expand_home,
        metavar="FOLDER",
        help="with --model: folder whose subfolders Probe, Gallery_Match and Gallery_Distractor "
        "contain the aligned images (default: the folder Testing_Set)",
    )
    add_rank_option(parser, RANKS)
    add_report_options(parser)


def run(options: argparse.Namespace) -> None:
    """Compute the rates of TinyFace; print a table, and write the requested files."""
    check_source(options, options.embeddings)
    check_report_options(options)
    ranks = parse_ranks("--ranks", options.ranks, highest=1_000_000)
    lists = read_tinyface(options.folder)
    probes, gallery, distractors = _open_rows(options, lists)
    ranking = rank_probes(
        read_all_unit_rows(probes),
        lists.probe_people,
        read_all_unit_rows(gallery),
        lists.gallery_people,
        distractors=distractors,
        average_precision=True,
    )
    result = summarize_ranking(ranking, ranks, fpirs=())
    result["gallery"], result["distractors"] = len(gallery), len(distractors)
    title = (
        f"TinyFace: {result['mated_probes']} probes, {len(gallery)} gallery images and "
        f"{len(distractors)} distractors"
    )
    keys = [*(f"rank_{rank}" for rank in ranks), "mean_average_precision"]
    table = rate_table(title, {"TinyFace": result}, keys)
    write_report(options, {"protocol": "tinyface", **result}, [table])


def _open_rows(
    options: argparse.Namespace, lists: TinyFaceLists
) -> tuple[RowSource, RowSource, RowSource]:
    """Return the embeddings of the probes, of the gallery and of the distractors."""
    kinds = (lists.probes, lists.gallery, lists.distractors)
    if options.embeddings:
        probes, gallery, distractors = (
            listed_rows(options.embeddings, names, options.folder) for names in kinds
        )
        return probes, gallery, distractors
    embedder = open_model(options)
    folder = options.images or options.folder
    for names in kinds:
        check_listed(embedder, folder, names, options.resize)
    probes, gallery, distractors = (
        embed_listed(embedder, folder, names, resize=options.resize, title=title)
        for names, title in zip(kinds, ("probes", "gallery", "distractors"), strict=True)
    )
    return probes, gallery, distractors
