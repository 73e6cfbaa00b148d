# SPDX-License-Identifier: Apache-2.0
"""Tables of the command ``verify``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evaluation.tables import Table, format_rate
from evaluation.verification import MIN_FALSE_ACCEPTS, cosine_threshold, format_far

Reports = Mapping[str, Mapping[str, Any]]
VARIANTS = (("flip", lambda report: report), ("no flip", lambda report: report["no_flip"]))
"""Variants of the embedding.

For each: its name, and a function that takes the report of a set and returns the variant's results.
"""


def make_tables(reports: Reports) -> list[Table]:
    """Return the tables for a dict from the name of each set to its report.

    A report is the result of `evaluation.set_report.report_set`.  It may also have the errors at
    the thresholds of another set, and the errors by group.
    """
    return [
        _accuracy_table(reports),
        _tar_table(reports),
        *_transfer_tables(reports),
        *_group_tables(reports),
    ]


def notes(reports: Reports) -> list[str]:
    """Return the lines that explain the tables."""
    lines = [
        "flip: sum of the embeddings of image and mirror image; no flip: embedding of the image",
        "threshold: cosine above which a pair counts as one person",
        "[low, high]: 95 % confidence interval, which treats people, not pairs, as independent; "
        "without NAME.people.txt, identical images and images connected by same-person pairs "
        "count as one person",
    ]
    if any(point["tar"] is None for report in reports.values() for point in report["roc"]):
        lines.append(
            "-: the set has too few different-person pairs; TAR at FAR needs at least "
            f"{MIN_FALSE_ACCEPTS} / FAR of them"
        )
    return lines


def format_interval(ends: Sequence[float] | None) -> str:
    """Return the ends of an interval in percent, or "-" for None."""
    return "-" if ends is None else f"[{100 * ends[0]:.2f}, {100 * ends[1]:.2f}]"


def _accuracy_table(reports: Reports) -> Table:
    columns = ["set", "pairs", "people", "accuracy [%]", "std", "95 % interval", "no flip [%]"]
    columns += ["95 % interval", "threshold", "EER [%]", "AUC [%]", "xnorm"]
    rows = []
    for name, report in reports.items():
        plain = report["no_flip"]
        people = f"{report['people']}" if "people" in report else f"({report['groups']} groups)"
        rows.append(
            [
                name,
                str(report["pairs"]),
                people,
                format_rate(report["accuracy"]),
                format_rate(report["accuracy_std"]),
                format_interval(report["accuracy_interval"]),
                format_rate(plain["accuracy"]),
                format_interval(plain["accuracy_interval"]),
                f"{cosine_threshold(report['best_threshold']):.4f}",
                format_rate(report["eer"]),
                format_rate(report["auc"]),
                f"{report['xnorm']:.2f}",
            ]
        )
    return Table("Verification", columns, rows)


def _tar_table(reports: Reports) -> Table:
    points = next(iter(reports.values()))["roc"]
    columns = ["TAR [%] at FAR", "different-person pairs"]
    columns += [format_far(point["far"]) for point in points]
    rows = []
    for name, report in reports.items():
        for variant, find in VARIANTS:
            found = find(report)["roc"]
            cells = [
                "-"
                if point["tar"] is None
                else f"{format_rate(point['tar'])} {format_interval(point['tar_interval'])}"
                for point in found
            ]
            rows.append([f"{name}, {variant}", str(found[0]["negatives"]), *cells])
    return Table("True accept rate at false accept rates of at most FAR", columns, rows)


def _format_error(rate: Mapping[str, Any] | None) -> str:
    if rate is None:
        return "-"
    return f"{format_rate(rate['rate'])} {format_interval([rate['low'], rate['high']])}"


def _transfer_tables(reports: Reports) -> Iterator[Table]:
    found = {name: r["at_thresholds_of"] for name, r in reports.items() if "at_thresholds_of" in r}
    if not found:
        return
    source = next(iter(found.values()))["set"]
    rows = [
        [f"{name}, {rule}", f"{errors['threshold']:.4f}", *_error_cells(errors)]
        for name, transfer in found.items()
        for rule, errors in transfer["errors"].items()
    ]
    columns = ["set, rule", "threshold", "accuracy [%]", "FMR [%]", "FNMR [%]"]
    yield Table(f"Errors at the thresholds selected on {source}", columns, rows)


def _error_cells(errors: Mapping[str, Any]) -> list[str]:
    return [_format_error(errors[key]) for key in ("accuracy", "fmr", "fnmr")]


def _group_tables(reports: Reports) -> Iterator[Table]:
    for name, report in reports.items():
        if "by_group" not in report:
            continue
        at = f"at the threshold {report['groups_at']:.4f}"
        rows = [
            [group, str(errors["accuracy"]["pairs"]), *_error_cells(errors)]
            for group, errors in report["by_group"].items()
        ]
        columns = ["group", "pairs", "accuracy [%]", "FMR [%]", "FNMR [%]"]
        yield Table(f"{name}: pairs within a group {at}", columns, rows)
        cross = report["cross_group"]
        rows = [
            [group, *("-" if rate is None else f"{100 * rate:.4f}" for rate in rates)]
            for group, rates in zip(cross["groups"], cross["fmr"], strict=True)
        ]
        title = f"{name}: FMR [%] between groups {at}, over {cross['of']}"
        yield Table(title, ["group", *cross["groups"]], rows)
