# SPDX-License-Identifier: Apache-2.0
"""Command ``verify``: score a model on verification sets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

import normalization
from atomic_write import atomic_write
from evaluation.commands.device import choose_device, find_cut_off_check
from evaluation.commands.models import build_net_on, read_model
from evaluation.commands.options import (
    add_model_options,
    add_set_options,
    check_batch_size,
    check_output_file,
)
from evaluation.commands.progress import Progress
from evaluation.pairs import read_sets
from evaluation.set_check import check_sets
from evaluation.verification import cosine_threshold

HELP = "score a model on verification sets"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_options(parser)
    add_set_options(parser)


def run(options: argparse.Namespace) -> None:
    """Score a model on verification sets; print a table, and write the JSON file if requested."""
    check_batch_size(options.batch_size)
    check_output_file("--json", options.json)
    # Read the sets before MXNet is imported, which takes seconds: most usage errors concern the
    # sets.
    sets = read_sets(options.sets)

    from evaluation.evaluate import evaluate_sets

    ctx = choose_device(options.device)
    model = read_model(options.model)
    check_sets(sets, model.image_size)
    net = build_net_on(model, ctx)
    with Progress() as progress:
        results = evaluate_sets(
            net,
            sets,
            mean=normalization.MEAN,
            std=normalization.STD,
            batch_size=options.batch_size,
            ctx=ctx,
            image_size=model.image_size,
            cut_off=find_cut_off_check(),
            progress=progress,
        )
    print(format_table(results))
    if options.json:
        report = {"checkpoint": model.source, "verification": results}
        with atomic_write(options.json, "w") as file:
            file.write(json.dumps(report, indent=2) + "\n")


def format_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the results of `evaluate_sets` as a table, one line per set.

    The column "threshold" is the mean threshold of the folds as a cosine, as ``compare-images
    --threshold`` expects it.
    """
    fars = [key for metrics in results.values() for key in metrics if key.startswith("tar_at_far_")]
    fars = list(dict.fromkeys(fars))
    rows = [
        ["set", "pairs", "accuracy", "threshold", *(f"tar@far {key[11:]}" for key in fars), "xnorm"]
    ]
    for name, metrics in results.items():
        accuracy = f"{metrics['accuracy']:.2%} ± {metrics['accuracy_std']:.2%}"
        tars = ["-" if metrics[key] is None else f"{metrics[key]:.2%}" for key in fars]
        cosine = f"{cosine_threshold(metrics['best_threshold']):.4f}"
        norm = f"{metrics['xnorm']:.2f}"
        rows.append([name, str(metrics["pairs"]), accuracy, cosine, *tars, norm])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.append("threshold: cosine above which a pair counts as one person")
    if any(metrics[key] is None for metrics in results.values() for key in fars):
        lines.append(
            "-: the set has too few different-person pairs; tar@far needs at least 10 / far of them"
        )
    return "\n".join(lines)
