# SPDX-License-Identifier: Apache-2.0
"""Tables of the command verify."""

from __future__ import annotations

from evaluation.commands.verification_tables import format_interval, make_tables, notes


def make_report(tar: float | None) -> dict:
    ends = None if tar is None else [tar - 0.01, tar + 0.01]
    point = {"far": 1e-3, "tar": tar, "tar_interval": ends, "negatives": 3000}
    plain = {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6], "roc": [point]}
    return {
        **plain,
        "pairs": 6000,
        "people": 12,
        "accuracy_std": 0.125,
        "best_threshold": 1.5,
        **{"eer": 0.25, "auc": 0.75, "xnorm": 3.0},
        "no_flip": {**plain, "accuracy": 0.25},
    }


def test_a_set_has_a_line_in_the_table_of_accuracies_and_two_in_that_of_rates():
    reports = {"lfw": make_report(0.25), "long_name": make_report(None)}
    accuracies, rates = make_tables(reports)
    assert list(accuracies.rows[0]) == [
        *("lfw", "6000", "12", "50.00", "12.50", "[40.00, 60.00]"),
        *("25.00", "[40.00, 60.00]", "0.2500", "25.00", "75.00", "3.00"),
    ]
    assert [row[0] for row in rates.rows] == [
        *("lfw, flip", "lfw, no flip", "long_name, flip", "long_name, no flip")
    ]
    assert rates.rows[1][1:] == ["3000", "25.00 [24.00, 26.00]"] and rates.rows[2][2] == "-"
    assert any(line.startswith("-: the set has too few") for line in notes(reports))
    assert not any(line.startswith("-:") for line in notes({"lfw": reports["lfw"]}))


def test_groups_of_linked_images_are_not_called_people():
    report = make_report(0.25)
    report["groups"] = report.pop("people")
    assert make_tables({"lfw": report})[0].rows[0][2] == "(12 groups)"
    assert format_interval(None) == "-"


def test_a_rate_without_pairs_is_a_dash_among_the_errors():
    rate = {"rate": 0.25, "low": 0.125, "high": 0.5}
    errors = {"threshold": 0.5, "accuracy": rate, "fmr": None, "fnmr": rate}
    report = {"at_thresholds_of": {"set": "lfw", "errors": {"best accuracy": errors}}}
    table = make_tables({"lfw": make_report(0.25) | report})[2]
    assert list(map(list, table.rows)) == [
        ["lfw, best accuracy", "0.5000", "25.00 [12.50, 50.00]", "-", "25.00 [12.50, 50.00]"]
    ]
