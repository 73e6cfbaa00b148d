# SPDX-License-Identifier: Apache-2.0
"""Command ``compare``: compare two models on the same verification sets."""

from __future__ import annotations

import argparse
import json

import normalization
from atomic_write import atomic_write
from evaluation.commands.device import choose_device, find_cut_off_check
from evaluation.commands.models import build_net_on, read_model
from evaluation.commands.options import (
    MODEL_HELP,
    add_model_options,
    add_set_options,
    check_batch_size,
    check_output_file,
)
from evaluation.pairs import read_sets
from evaluation.set_check import check_sets
from launch.config.paths import expand_home

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

    from evaluation.bootstrap import find_correct_pairs, find_people, paired_difference
    from evaluation.embedding import embed

    ctx = choose_device(options.device)
    models = [read_model(path) for path in (options.base, options.model)]
    for model in models:
        check_sets(sets, model.image_size)
    nets = [(build_net_on(model, ctx), model.image_size) for model in models]
    cut_off = find_cut_off_check()
    results = {}
    for name, pairs in sets.items():
        base, other = (
            find_correct_pairs(
                embed(
                    net,
                    pairs.images,
                    image_size,
                    mean=normalization.MEAN,
                    std=normalization.STD,
                    batch_size=options.batch_size,
                    ctx=ctx,
                    where=pairs.path,
                    cut_off=cut_off,
                )[0],
                pairs.issame,
            )
            for net, image_size in nets
        )
        found = paired_difference(base, other, find_people(pairs))
        print(
            f"{name}: accuracy {base.mean():.2%} -> {other.mean():.2%}, difference "
            f"{100 * found.difference:+.2f} percentage points, 95 % interval "
            f"{100 * found.low:+.2f} to {100 * found.high:+.2f} (bootstrap over {found.people} "
            "people)"
        )
        accuracies = {"base": float(base.mean()), "accuracy": float(other.mean())}
        results[name] = accuracies | found._asdict()
    if options.json:
        report = {"base": models[0].source, "checkpoint": models[1].source, "comparison": results}
        with atomic_write(options.json, "w") as file:
            file.write(json.dumps(report, indent=2) + "\n")
