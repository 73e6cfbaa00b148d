# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``identify people``: closed-set and open-set 1:N with folders or files of your own."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from evaluation.commands.embedding_sources import (
    add_source_options,
    open_model,
    refuse_without_model,
    rows_of_entry,
)
from evaluation.commands.options import add_rank_option, check_batch_size
from evaluation.commands.reports import (
    add_report_options,
    check_report_options,
    parse_ranks,
    parse_rates,
    rate_table,
    write_report,
)
from evaluation.embedding_files import is_embedding_file
from evaluation.identification import (
    FPIRS,
    RANKS,
    UNKNOWN_PERSON,
    rank_probes,
    summarize_ranking,
)
from evaluation.row_sources import RowSource, read_all_unit_rows
from evaluation.text_lists import ListError, read_lines
from launch.config.paths import expand_home

HELP = "open-set 1:N: rank-k, and TPIR at FPIR if some probes are not in the gallery"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    add_source_options(parser)
    for name, required in (("probes", True), ("gallery", True), ("distractors", False)):
        parser.add_argument(
            f"--{name}",
            required=required,
            type=expand_home,
            metavar="FILE|FOLDER",
            help=f"{name}: a file of embeddings or, with --model, a folder of images; for probes "
            "and gallery, the folder that contains an image has the name of its person",
        )
    for name in ("probe", "gallery"):
        parser.add_argument(
            f"--{name}-people",
            type=expand_home,
            metavar="FILE",
            help="text file with the person of each embedding, one name per line (default: the "
            "name of the folder that contains the image)",
        )
    add_rank_option(parser, RANKS)
    parser.add_argument(
        "--fpirs",
        nargs="+",
        type=float,
        default=list(FPIRS),
        metavar="FPIR",
        help="false positive identification rates at which to compute TPIR",
    )
    add_report_options(parser)


def run(options: argparse.Namespace) -> None:
    """Compute the rates of an identification; print a table, and write the requested files."""
    check_batch_size(options.batch_size)
    check_report_options(options)
    ranks = parse_ranks("--ranks", options.ranks, highest=1_000_000)
    fpirs = parse_rates("--fpirs", options.fpirs)
    given = [options.probes, options.gallery, options.distractors]
    folders = [entry for entry in given if entry and not is_embedding_file(entry)]
    if options.model is not None and not folders:
        raise ValueError(
            "--model: is needed for folders of images only, got files of embeddings only; omit "
            "--model"
        )
    refuse_without_model(options, ("no_flip",))
    if os.path.realpath(options.probes) == os.path.realpath(options.gallery):
        raise ValueError(
            "--gallery: must differ from --probes, since every probe would find its own image, got "
            f"{options.gallery} twice; name another gallery"
        )
    embedder = open_model(options) if options.model is not None else None
    rows: dict[str, RowSource] = {}
    names: dict[str, list[str] | None] = {}
    for title, entry in zip(("probes", "gallery", "distractors"), given, strict=True):
        if entry:
            rows[title], names[title] = rows_of_entry(
                entry, embedder, resize=options.resize, title=title
            )
    people = [
        people_of(options.probe_people, names["probes"], options.probes, len(rows["probes"])),
        people_of(options.gallery_people, names["gallery"], options.gallery, len(rows["gallery"])),
    ]
    probe_people, gallery_people = number_people(*people)
    ranking = rank_probes(
        read_all_unit_rows(rows["probes"]),
        probe_people,
        read_all_unit_rows(rows["gallery"]),
        gallery_people,
        distractors=rows.get("distractors"),
    )
    result = summarize_ranking(ranking, ranks, fpirs)
    result["gallery"] = len(rows["gallery"])
    result["distractors"] = len(rows["distractors"]) if "distractors" in rows else 0
    title = (
        f"Identification: {result['mated_probes']} probes with and {result['unmated_probes']} "
        f"without mate, {result['gallery']} gallery images, {result['distractors']} distractors"
    )
    keys = [f"rank_{rank}" for rank in ranks] + [f"tpir_at_fpir_{fpir:g}" for fpir in fpirs]
    table = rate_table(title, {"all": result}, keys)
    write_report(options, {"protocol": "people", **result}, [table])


def people_of(path: str | None, names: Sequence[str] | None, entry: str, count: int) -> list[str]:
    """Return the person of each embedding: from a text file, or from the folders of the images.

    Raises
    ------
    ListError
        If the text file does not have `count` lines, or there is no text file and no folder that
        names a person.
    """
    if path is not None:
        people = [text for _, text in read_lines(path)]
        if len(people) != count:
            raise ListError(
                f"{path}: must have one name for each of the {count} embeddings of {entry}, got "
                f"{len(people)} names; make the list again"
            )
        return people
    if names is None:
        raise ListError(
            f"{entry}: the person of each embedding must be known, got a file without names of "
            "images; give --probe-people and --gallery-people"
        )
    for name in names:
        if not PurePath(name).parent.name:
            raise ListError(
                f"{entry}: the folder of each image must name its person, got {name!r}; give "
                "--probe-people and --gallery-people"
            )
    return [PurePath(name).parent.name for name in names]


def number_people(
    probe_people: Sequence[str], gallery_people: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Number the people of the gallery from 0; a probe of another person gets UNKNOWN_PERSON."""
    numbers: dict[str, int] = {}
    gallery = np.array([numbers.setdefault(name, len(numbers)) for name in gallery_people])
    probes = np.array([numbers.get(name, UNKNOWN_PERSON) for name in probe_people])
    return probes.astype(np.int64), gallery.astype(np.int64)
