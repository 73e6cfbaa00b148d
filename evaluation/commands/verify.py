# SPDX-License-Identifier: Apache-2.0
"""Command ``verify``: score a model on verification sets, with one rank or several ranks."""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import normalization
from evaluation.commands.device import choose_device, find_cut_off_check
from evaluation.commands.models import build_net_on, read_model
from evaluation.commands.options import (
    add_model_options,
    add_sets,
    check_batch_size,
    check_output_file,
)
from evaluation.commands.progress import Progress
from evaluation.commands.ranks import Ranks, run_on_ranks
from evaluation.commands.reports import (
    add_report_options,
    check_report_options,
    parse_rates,
    write_report,
)
from evaluation.commands.verification_tables import make_tables, notes
from evaluation.groups import cross_group_rates, find_groups_of, group_errors
from evaluation.pairs import PairsError, read_sets
from evaluation.people import find_people
from evaluation.roc import FARS
from evaluation.score_files import write_scores
from evaluation.set_check import check_sets
from evaluation.set_report import report_set
from evaluation.threshold_transfer import errors_at, fix_thresholds
from evaluation.verification import best_threshold, pair_distances
from launch.config.paths import expand_home

if TYPE_CHECKING:
    from evaluation.embedding import FlippedEmbeddings
    from evaluation.groups import Groups
    from evaluation.pairs import Pairs
    from evaluation.people import People

Scored = tuple[np.ndarray, np.ndarray]
"""Squared distance of each pair of a set, and whether the pair shows one person, (P,) each."""
HELP = "score a model on verification sets"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_options(parser)
    add_sets(parser)
    add_report_options(parser)
    parser.add_argument(
        "--far",
        type=float,
        nargs="+",
        default=list(FARS),
        metavar="RATE",
        help="false accept rates at which to compute the true accept rate (default: 1e-6 to 1e-1)",
    )
    parser.add_argument(
        "--threshold-from",
        metavar="SET",
        help="also print the errors of all sets at thresholds that are selected on this set",
    )
    parser.add_argument(
        "--scores",
        type=expand_home,
        metavar="FILE",
        help="also write the cosine of every pair to this .npz file, which the command plot reads",
    )


def run(options: argparse.Namespace) -> int:
    """Score a model; print tables, and write the files that the options name."""
    check_batch_size(options.batch_size)
    check_report_options(options)
    check_output_file("--scores", options.scores)
    options.far = parse_rates("--far", options.far)
    return run_on_ranks(partial(_verify, options))


def _verify(options: argparse.Namespace, ranks: Ranks) -> None:
    # Importing MXNet takes seconds.  Read the sets first, because most usage errors concern the
    # sets.
    sets, people, groups = ranks.agree(partial(_read_sets, options))
    facts = {
        name: [zlib.crc32(pairs.issame.tobytes()), zlib.crc32(people[name].numbers.tobytes())]
        for name, pairs in sets.items()
    }
    ranks.require_equal(facts, "verification sets")
    source, reports, scores = _score(options, ranks, sets, people=people, groups=groups)
    if ranks.rank == 0:
        _say_mixed(groups)
    ranks.agree(partial(_write, options, source, reports, scores) if not ranks.rank else _nothing)


def _nothing() -> None:
    """Do nothing: ranks other than 0 write no files."""


def _read_sets(
    options: argparse.Namespace,
) -> tuple[Mapping[str, Pairs], dict[str, People], dict[str, Groups | None]]:
    sets = read_sets(options.sets)
    if options.threshold_from is not None and options.threshold_from not in sets:
        raise PairsError(
            f"--threshold-from: must be the name of a set, got {options.threshold_from!r}; name "
            f"one of {', '.join(sets)}"
        )
    people = {name: find_people(pairs) for name, pairs in sets.items()}
    return sets, people, {name: find_groups_of(pairs) for name, pairs in sets.items()}


def _score(
    options: argparse.Namespace,
    ranks: Ranks,
    sets: Mapping[str, Pairs],
    *,
    people: Mapping[str, People],
    groups: Mapping[str, Groups | None],
) -> tuple[str, dict[str, dict[str, Any]], dict[str, Scored]]:
    """Embed and score all sets.

    Outputs
    -------
    The source of the model; the report of each set; and for each set the squared distance of each
    pair, and whether the pair shows one person.
    """
    from evaluation.evaluate import embed_sets

    ctx = ranks.agree(lambda: choose_device(options.device, ranks.local_rank, ranks.local_size))
    model = ranks.agree(lambda: read_model(options.model, quiet=ranks.rank > 0))
    weights = [zlib.crc32(array.tobytes()) for array in model.parameters.values()]
    ranks.require_equal(weights, f"{options.model}: weights")
    ranks.agree(lambda: check_sets(sets, model.image_size))
    net = ranks.agree(lambda: build_net_on(model, ctx, quiet=ranks.rank > 0))
    reports: dict[str, dict[str, Any]] = {}
    scores: dict[str, Scored] = {}

    def score_all(embedded: Iterable[tuple[str, FlippedEmbeddings]]) -> None:
        for name, found in embedded:
            try:
                reports[name] = report_set(found, sets[name].issame, people[name], options.far)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            distances = pair_distances(found.sums)
            scores[name] = distances, sets[name].issame
            reports[name] |= _report_groups(
                distances, sets[name], people[name], groups[name], found.sums
            )

    with Progress() as progress:
        embedded = embed_sets(
            net,
            sets,
            mean=normalization.MEAN,
            std=normalization.STD,
            batch_size=options.batch_size,
            ctx=ctx,
            image_size=model.image_size,
            rank=ranks.rank,
            size=ranks.size,
            gather=ranks.comm.gather if ranks.comm else None,
            cut_off=find_cut_off_check(),
            progress=None if ranks.rank else progress,
        )
        ranks.agree(lambda: score_all(embedded))
    if options.threshold_from is not None:
        _transfer(options, reports, scores, people)
    return model.source, reports, scores


def _report_groups(
    distances: np.ndarray,
    pairs: Pairs,
    people: People,
    groups: Groups | None,
    embeddings: np.ndarray,
) -> dict[str, Any]:
    """Return the errors of each group at the threshold of best accuracy; {} without groups."""
    if groups is None:
        return {}
    threshold = best_threshold(distances, pairs.issame)
    sides = people.numbers.reshape(-1, 2)
    return {
        "groups_at": 1 - threshold / 2,
        "by_group": group_errors(threshold, distances, pairs.issame, groups=groups, people=sides),
        "cross_group": cross_group_rates(
            threshold, distances, pairs, groups=groups, embeddings=embeddings
        ),
        "people_in_several_groups": dict(groups.mixed),
    }


def _transfer(
    options: argparse.Namespace,
    reports: dict[str, dict[str, Any]],
    scores: Mapping[str, Scored],
    people: Mapping[str, People],
) -> None:
    """Add to each report the errors at the thresholds of the set that --threshold-from names."""
    fixed = fix_thresholds(*scores[options.threshold_from], options.far)
    for name, report in reports.items():
        distances, issame = scores[name]
        sides = people[name].numbers.reshape(-1, 2)
        report["at_thresholds_of"] = {
            "set": options.threshold_from,
            "errors": {
                rule: errors_at(threshold, distances, issame, sides) for rule, threshold in fixed
            },
        }


def _say_mixed(groups: Mapping[str, Groups | None]) -> None:
    for name, found in groups.items():
        for person, labels in found.mixed if found else ():
            print(
                f"evaluation: {name}: {person} is in several groups, got {', '.join(labels)}; each "
                "image counts in its own group",
                file=sys.stderr,
            )


def _write(
    options: argparse.Namespace,
    source: str,
    reports: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Scored],
) -> None:
    report = {"checkpoint": source, "verification": reports}
    write_report(options, report, make_tables(reports))
    print("\n".join(["", *notes(reports)]))
    if options.scores:
        write_scores(options.scores, scores)
