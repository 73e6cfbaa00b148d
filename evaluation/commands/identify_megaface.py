# SPDX-License-Identifier: Apache-2.0
"""Subcommand ``identify megaface``: FaceScrub probes against up to a million distractors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.commands.embedding_sources import (
    add_source_options,
    check_listed,
    embed_listed,
    listed_rows,
    open_model,
    refuse_without_model,
)
from evaluation.commands.options import add_rank_option, check_batch_size
from evaluation.commands.reports import (
    add_report_options,
    check_report_options,
    parse_ranks,
    parse_rates,
    rate_table,
    roc_table,
    write_report,
)
from evaluation.embedding_files import is_embedding_file
from evaluation.protocols import megaface
from evaluation.protocols.megaface_features import FeatureFolder, write_feature_folder
from evaluation.protocols.megaface_lists import (
    DISTRACTOR_PARTS,
    PROBE_PARTS,
    read_distractor_noises,
    read_image_list,
    read_probe_noises,
)
from evaluation.row_sources import RowSource, read_all_unit_rows, read_unit_rows
from launch.config.paths import expand_home

if TYPE_CHECKING:
    from interchange.embedder import Embedder

HELP = "MegaFace challenge 1: rank-k for each number of distractors, and ROC"
BLOCK_ROWS = 4096


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    add_source_options(parser)
    for name, example in (("probe", "facescrub"), ("distractor", "megaface")):
        parser.add_argument(
            f"--{name}s",
            required=True,
            type=expand_home,
            metavar="FOLDER|FILE",
            help=f"{name}s: a folder of feature files ({example}/<path><suffix>) or a file of "
            "embeddings; with --model, a folder of images",
        )
        parser.add_argument(
            f"--{name}-list",
            required=True,
            type=expand_home,
            metavar="FILE",
            help=f"list of the {name}s, such as {example}_lst or a template list of the challenge",
        )
        parser.add_argument(
            f"--{name}-noises",
            type=expand_home,
            metavar="FILE",
            help=f"list of mislabelled {name}s, such as {example}_noises.txt",
        )
    parser.add_argument(
        "--noise-rule",
        choices=megaface.NOISE_RULES,
        default="replace",
        help="what to do with the feature of a mislabelled probe: replace it by the mean of the "
        "person's correct features, as InsightFace does, or remove it (default: replace)",
    )
    parser.add_argument(
        "--suffix",
        metavar="TEXT",
        help="end of the names of feature files, such as _r100.bin",
    )
    parser.add_argument(
        "--write-features",
        type=expand_home,
        metavar="FOLDER",
        help="with --model: also write the features as FOLDER/facescrub/... and "
        "FOLDER/megaface/..., files that MegaFace's development kit reads; needs --suffix",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        metavar="N",
        help="numbers of distractors; each N uses the first N of the list (default: the powers of "
        "ten below the length of the list, and that length)",
    )
    add_rank_option(parser, megaface.RANKS)
    parser.add_argument(
        "--fars",
        nargs="+",
        type=float,
        default=list(megaface.FARS),
        metavar="FAR",
        help="false accept rates at which to compute the true accept rate",
    )
    add_report_options(parser)


def run(options: argparse.Namespace) -> None:
    """Compute the rates of MegaFace; print tables, and write the requested files."""
    check_batch_size(options.batch_size)
    check_report_options(options)
    _check_features(options)
    ranks, fars = parse_ranks("--ranks", options.ranks), parse_rates("--fars", options.fars)
    probe_names = read_image_list(options.probe_list, PROBE_PARTS)
    names = read_image_list(options.distractor_list, DISTRACTOR_PARTS)
    probe_noises = read_probe_noises(options.probe_noises) if options.probe_noises else set()
    noises = read_distractor_noises(options.distractor_noises) if options.distractor_noises else {}
    sizes = choose_sizes(options.sizes, len(names))

    probe_rows, rows = _open_rows(options, probe_names, names)
    features = read_all_unit_rows(probe_rows)
    kept, features = megaface.clean_probes(probe_names, features, probe_noises, options.noise_rule)
    distractors, remaining = megaface.clean_distractors(names, rows, set(noises))
    results = megaface.evaluate_megaface(
        kept,
        features,
        distractors,
        {size: int(remaining[size]) for size in sizes},
        ranks=ranks,
        fars=fars,
    )
    results["noise"] = {
        "rule": options.noise_rule,
        "probes": sum(name.split("/")[-1] in probe_noises for name in probe_names),
        "distractors": len(names) - int(remaining[-1]),
    }
    for path, kind in (
        (options.probe_noises, "probes"),
        (options.distractor_noises, "distractors"),
    ):
        if path and not results["noise"][kind]:
            print(f"evaluation: {path}: names none of the {kind}", file=sys.stderr)
    write_report(options, {"protocol": "megaface", **results}, _tables(results, ranks))


def choose_sizes(sizes: Sequence[int] | None, count: int) -> list[int]:
    """Return the numbers of distractors in ascending order.

    If no numbers are given, they are the powers of ten below `count`, and `count`.

    Raises
    ------
    ValueError
        If a given number is not from 1 to `count`.
    """
    if sizes is None:
        powers = [10**n for n in range(1, 10) if 10**n < count]
        return [*powers, count]
    for size in sizes:
        if not 1 <= size <= count:
            raise ValueError(
                f"--sizes: each number must be between 1 and {count}, the number of distractors in "
                f"the list, got {size}; correct the number"
            )
    return sorted(set(sizes))


def _check_features(options: argparse.Namespace) -> None:
    refuse_without_model(options, ("no_flip",))
    folders = [p for p in (options.probes, options.distractors) if not is_embedding_file(p)]
    if options.model is None and folders and not options.suffix:
        raise ValueError(
            f"--suffix: the end of the names of the feature files in {folders[0]} must be given, "
            "got none; give --suffix _NAME.bin, or --model for a folder of images"
        )
    if options.model is None and not folders and options.suffix:
        raise ValueError(
            f"--suffix: is for folders of features, got {options.suffix!r} and files of embeddings "
            "only; omit --suffix"
        )
    if options.model is not None and len(folders) < 2:
        raise ValueError(
            "--model: --probes and --distractors must be folders of images, got a file of "
            "embeddings; omit --model, or name two folders"
        )
    if not options.write_features:
        return
    if options.model is None or not options.suffix:
        raise ValueError(
            "--write-features: needs --model and --suffix, got at most one of them; give both"
        )
    folder = Path(options.write_features)
    parent = folder if folder.exists() else folder.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(
            "--write-features: must be a folder with write access, or a new folder in such a "
            f"folder, got {folder}; name another folder"
        )
    if "/" in options.suffix:
        raise ValueError(
            f"--suffix: must be the end of a file name, got {options.suffix!r}; omit the slash"
        )


def _open_rows(
    options: argparse.Namespace, probe_names: Sequence[str], names: Sequence[str]
) -> tuple[RowSource, RowSource]:
    """Return the features of all probes and of all distractors."""
    parts = (
        ("facescrub", options.probes, probe_names, options.probe_list),
        ("megaface", options.distractors, names, options.distractor_list),
    )
    if options.model is None:
        probes, distractors = (
            listed_rows(entry, listed, path)
            if is_embedding_file(entry)
            else FeatureFolder(entry, listed, options.suffix)
            for _, entry, listed, path in parts
        )
        return probes, distractors
    embedder = open_model(options)
    for _, folder, listed, _ in parts:
        check_listed(embedder, folder, listed, options.resize)
    probes, distractors = (_embed(options, embedder, *part[:3]) for part in parts)
    return probes, distractors


def _embed(
    options: argparse.Namespace,
    embedder: Embedder,
    title: str,
    folder: str,
    names: Sequence[str],
) -> RowSource:
    rows = embed_listed(embedder, folder, names, resize=options.resize, title=title)
    if options.write_features:
        for start in range(0, len(rows), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(rows))
            write_feature_folder(
                Path(options.write_features) / title,
                names[start:stop],
                np.asarray(read_unit_rows(rows, start, stop)),
                options.suffix,
            )
    return rows


def _tables(results: dict[str, Any], ranks: Sequence[int]) -> list[Any]:
    rates = {f"{size} distractors": rates for size, rates in results["sizes"].items()}
    title = f"MegaFace: {results['probes']} probes of {results['people']} people"
    largest = list(results["sizes"])[-1]
    return [
        rate_table(title, rates, [f"rank_{rank}" for rank in ranks]),
        roc_table(
            f"MegaFace: {results['pairs']} genuine and {results['impostor_pairs']} impostor pairs",
            {f"{largest} distractors": results["roc"]},
        ),
    ]
