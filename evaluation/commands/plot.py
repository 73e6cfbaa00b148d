# SPDX-License-Identifier: Apache-2.0
"""Command ``plot``: draw ROC, DET, histograms of scores, or curves of runs, as PNG or SVG."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from evaluation.commands.options import check_output_file
from evaluation.plots import (
    PlotError,
    check_plot_file,
    draw_det,
    draw_histogram,
    draw_roc,
    draw_runs,
)
from evaluation.run_histories import MAX_SHOWN_KEYS, find_curve, number_keys, read_history
from evaluation.score_files import Scores, read_scores
from launch.config.paths import expand_home

HELP = "draw ROC, DET, histograms of scores, or curves of runs"
DIAGRAMS = {"roc": draw_roc, "det": draw_det, "histogram": draw_histogram}
TEXTS = {
    "roc": "plot the true accept rate against the false accept rate",
    "det": "plot the false reject rate against the false accept rate, on normal deviate scales",
    "histogram": "draw histograms of the cosines of same-person and of different-person pairs",
}
MAX_CURVES = 40


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add one subcommand for each kind of diagram."""
    diagrams = parser.add_subparsers(dest="diagram", required=True)
    for name, text in TEXTS.items():
        diagram = diagrams.add_parser(name, help=text, description=text)
        diagram.add_argument(
            "scores",
            nargs="+",
            type=expand_home,
            metavar="SCORES",
            help="files that `python -m evaluation verify --scores` has written",
        )
        diagram.add_argument("--sets", nargs="+", metavar="SET", help="sets to draw (default: all)")
        _add_out(diagram)
    text = "draw values from the files metrics.jsonl of runs"
    runs = diagrams.add_parser("runs", help=text, description=text)
    runs.add_argument("runs", nargs="+", type=expand_home, metavar="RUN", help="run folders")
    runs.add_argument(
        "--keys",
        nargs="+",
        default=["loss"],
        metavar="KEY",
        help="keys of metrics.jsonl, such as loss or verification/lfw/accuracy (default: loss)",
    )
    runs.add_argument(
        "--x", choices=("step", "images", "epoch"), default="step", help="horizontal axis"
    )
    _add_out(runs)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        required=True,
        type=expand_home,
        metavar="FILE",
        help="diagram to write: NAME.png or NAME.svg",
    )


def run(options: argparse.Namespace) -> None:
    """Draw a diagram."""
    check_plot_file(options.out)
    check_output_file("--out", options.out)
    if options.diagram == "runs":
        _draw_runs(options)
    else:
        DIAGRAMS[options.diagram](find_scores(options.scores, options.sets), options.out)
    print(options.out)


def find_scores(paths: Sequence[str], chosen: Sequence[str] | None) -> dict[str, Scores]:
    """Read files of scores; return a dict from the name of each curve to its scores.

    The name of a curve is that of its verification set.  With several files, the name is
    "FILE SET", where FILE is the name of the file without ".npz".

    Raises
    ------
    ValueError
        If a file cannot be used, a chosen set is in no file, two curves have the same name, or
        there are more than MAX_CURVES curves.
    """
    found: dict[str, Scores] = {}
    names: list[str] = []
    for path in paths:
        for name, scores in read_scores(path).items():
            names.append(name)
            if chosen is not None and name not in chosen:
                continue
            curve = name if len(paths) == 1 else f"{Path(path).stem} {name}"
            if curve in found:
                raise PlotError(
                    f"{path}: two curves must not have the same name, got {curve!r} twice; rename "
                    "a file"
                )
            found[curve] = scores
    for name in chosen or ():
        if name not in names:
            raise PlotError(
                f"--sets: must name sets in the files, got {name!r}; use some of "
                f"{', '.join(dict.fromkeys(names))}"
            )
    if len(found) > MAX_CURVES:
        raise PlotError(
            f"plot: draws at most {MAX_CURVES} sets, got {len(found)}; choose some with --sets"
        )
    return found


def _draw_runs(options: argparse.Namespace) -> None:
    if len(options.runs) > MAX_CURVES or len(options.keys) > MAX_CURVES:
        raise PlotError(
            f"plot: draws at most {MAX_CURVES} runs and {MAX_CURVES} keys, got "
            f"{len(options.runs)} runs and {len(options.keys)} keys; name fewer"
        )
    histories = {str(folder): read_history(Path(folder)) for folder in options.runs}
    stems = [Path(folder).name for folder in histories]
    names = stems if len(set(stems)) == len(stems) else list(histories)
    panels = {}
    for key in options.keys:
        curves = {
            name: find_curve(lines, options.x, key)
            for name, lines in zip(names, histories.values(), strict=True)
        }
        panels[key] = {name: curve for name, curve in curves.items() if curve[0]}
        if not panels[key]:
            keys = sorted({key for lines in histories.values() for key in number_keys(lines)})
            raise PlotError(
                f"--keys: must name keys of numbers in metrics.jsonl, got {key!r}, but no line has "
                f"numbers for both {key!r} and {options.x!r}; use some of "
                f"{', '.join(keys[:MAX_SHOWN_KEYS]) or 'none'}"
            )
    draw_runs(panels, options.x, options.out)
