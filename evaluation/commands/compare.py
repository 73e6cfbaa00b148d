# SPDX-License-Identifier: Apache-2.0
"""Command ``compare``: compare two models on the same verification sets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import normalization
from atomic_write import atomic_write
from evaluation.bootstrap import find_correct_pairs, paired_difference
from evaluation.commands.device import choose_device, find_cut_off_check
from evaluation.commands.models import build_net_on, read_model
from evaluation.commands.options import (
    MODEL_HELP,
    add_model_options,
    add_set_options,
    check_batch_size,
    check_output_file,
)
from evaluation.commands.progress import Progress
from evaluation.distinct import find_distinct
from evaluation.pairs import read_sets
from evaluation.people import find_people
from evaluation.set_check import check_sets
from evaluation.verification import cosine_threshold, verify
from launch.config.paths import expand_home

if TYPE_CHECKING:
    import numpy as np

    from evaluation.pairs import Pairs
    from evaluation.people import People

GROUPS_NOTE = (
    "groups: sets of images that same-person pairs link; one person may be in several groups, so "
    "an interval over groups may be too narrow; a file NAME.people.txt beside NAME.bin can name "
    "the person of each image"
)
HELP = "compare the accuracies of two models, with a 95 %% interval of their difference"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--base",
        required=True,
        type=expand_home,
        metavar="MODEL",
        help=f"baseline {MODEL_HELP}",
    )
    add_model_options(parser)
    add_set_options(parser)


def run(options: argparse.Namespace) -> None:
    """Score two models on the same sets; print the difference in accuracy with an interval."""
    check_batch_size(options.batch_size)
    check_output_file("--json", options.json)
    sets = read_sets(options.sets)
    people = {name: find_people(pairs) for name, pairs in sets.items()}

    ctx = choose_device(options.device)
    models = [read_model(path) for path in (options.base, options.model)]
    for model in models:
        check_sets(sets, model.image_size)
    nets = [build_net_on(model, ctx) for model in models]
    results = {}
    with Progress() as progress:
        for name, pairs in sets.items():
            first, numbers = find_distinct(pairs.images)
            base, other = (
                _embed(
                    net,
                    pairs,
                    first,
                    model.image_size,
                    options=options,
                    ctx=ctx,
                    progress=partial(progress, f"{name}, {role}"),
                )[numbers]
                for net, model, role in zip(nets, models, ("base", "model"), strict=True)
            )
            results[name] = compare_embeddings(base, other, pairs.issame, people[name])
            print(format_line(name, results[name], people[name].kind))
    if any(found.kind == "groups" for found in people.values()):
        print(GROUPS_NOTE)
    if options.json:
        report = {"base": models[0].source, "checkpoint": models[1].source, "comparison": results}
        with atomic_write(options.json, "w") as file:
            file.write(json.dumps(report, indent=2) + "\n")


def _embed(
    net: Any,
    pairs: Pairs,
    first: Sequence[int],
    image_size: tuple[int, int],
    *,
    options: argparse.Namespace,
    ctx: Any,
    progress: Callable[[int, int], None],
) -> np.ndarray:
    """Embed the images of a set that have the indices `first`; return (len(first), E) float32."""
    from evaluation.embedding import embed

    return embed(
        net,
        pairs.images,
        image_size,
        mean=normalization.MEAN,
        std=normalization.STD,
        batch_size=options.batch_size,
        ctx=ctx,
        chosen=first,
        where=pairs.path,
        cut_off=find_cut_off_check(),
        progress=progress,
    )[0]


def compare_embeddings(
    base: np.ndarray, other: np.ndarray, issame: np.ndarray, people: People
) -> dict[str, float]:
    """Compare two models by their embeddings of the same P pairs.

    Inputs
    ------
    base (2 P, E), other (2 P, F), issame (P,) bool.

    Outputs
    -------
    ``base`` and ``accuracy``, the accuracies of the baseline and of the other model;
    ``base_threshold`` and ``threshold``, the threshold of the baseline and that of the other model,
    each a cosine, the mean over the folds; ``difference``, ``low`` and ``high`` of
    `evaluation.bootstrap.Difference`; and ``people`` or ``groups``, the number of people or groups
    that the bootstrap draws from.
    """
    base_correct, correct = (find_correct_pairs(each, issame) for each in (base, other))
    base_threshold, threshold = (
        cosine_threshold(verify(each, issame)["best_threshold"]) for each in (base, other)
    )
    found = paired_difference(base_correct, correct, people.numbers)
    return {
        "base": float(base_correct.mean()),
        "accuracy": float(correct.mean()),
        "base_threshold": base_threshold,
        "threshold": threshold,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        people.kind: found.people,
    }


def format_line(name: str, result: Mapping[str, float], kind: str) -> str:
    """Format the result of `compare_embeddings` for the set `name` as one line."""
    clusters = "people" if kind == "people" else "groups of linked images"
    return (
        f"{name}: accuracy {result['base']:.2%} -> {result['accuracy']:.2%}, difference "
        f"{100 * result['difference']:+.2f} percentage points, 95 % interval "
        f"{100 * result['low']:+.2f} to {100 * result['high']:+.2f} (bootstrap over "
        f"{result[kind]} {clusters}), cosine threshold {result['base_threshold']:.4f} -> "
        f"{result['threshold']:.4f}"
    )
