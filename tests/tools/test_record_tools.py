# SPDX-License-Identifier: Apache-2.0
"""Shuffled sets, people held out, and the count of people per batch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from evaluation.pairs import read_pairs
from pipeline.record_reader import RecordReader
from pipeline.records import open_records
from tools import batch_mixing, hold_out_people, shuffle_records

ROOT = Path(__file__).resolve().parents[2]


def images(folder: Path) -> list[tuple[int, bytes]]:
    """Return (label, JPEG bytes) of a set in the order of its keys."""
    records = open_records(folder, folder)
    jpegs = RecordReader(records).read(np.arange(len(records)))
    return [(int(n), j.tobytes()) for n, j in zip(records.labels, jpegs, strict=True)]


def test_a_shuffled_set_holds_the_same_images_in_another_order(tiny_records, tmp_path):
    assert shuffle_records.shuffle([tiny_records], tmp_path, seed=3) == 120
    before, after = images(tiny_records), images(tmp_path)
    assert Counter(before) == Counter(after)
    assert before != after
    changes = np.count_nonzero(np.diff([label for label, _ in after]))
    assert changes > 80  # 11 where sorted, 110 on average where shuffled
    assert (tmp_path / "property").read_text().startswith("12,112,112")


@pytest.mark.parametrize(("labels", "people"), [("stacked", 15), ("shared", 12)])
def test_several_sets_are_shuffled_into_one(tiny_records, make_records, tmp_path, labels, people):
    other = make_records(3, 4)
    count = shuffle_records.shuffle([tiny_records, other], tmp_path, seed=3, labels=labels)
    first, second, after = images(tiny_records), images(other), images(tmp_path)
    begin = 12 if labels == "stacked" else 0
    assert count == 132
    assert Counter(after) == Counter(first) + Counter((begin + n, jpeg) for n, jpeg in second)
    assert (tmp_path / "property").read_text().startswith(f"{people},112,112")
    assert (tmp_path / "classes.json").exists() == (labels == "stacked")
    if labels == "stacked":
        classes = json.loads((tmp_path / "classes.json").read_text())
        assert classes["records"] == [str(f / "train.rec") for f in (tiny_records, other)]
        assert classes["record"] == [0] * 12 + [1] * 3
        assert classes["label"] == [*range(12), *range(3)]


def test_a_set_is_not_shuffled_onto_itself(tiny_records):
    with pytest.raises(ValueError, match="is the folder of the set itself"):
        shuffle_records.shuffle([tiny_records], tiny_records, seed=1)


def test_people_held_out_are_not_trained_on(make_records, tmp_path):
    source = make_records(60, 6)
    hold_out_people.hold_out(source, tmp_path, every=3, pairs=60)
    person = {jpeg: label for label, jpeg in images(source)}
    kept = {person[jpeg] for _, jpeg in images(tmp_path)}
    labels = [label for label, _ in images(tmp_path)]
    assert sorted(set(labels)) == list(range(40))
    pairs = read_pairs(tmp_path / "held_out.bin")
    shown = [person[bytes(jpeg)] for jpeg in pairs.images]
    assert kept | set(shown) <= set(range(60)) and not kept & set(shown)
    same = [a == b for a, b in zip(shown[::2], shown[1::2], strict=True)]
    assert same == list(pairs.issame) and sum(same) == 30
    folds = [set(shown[i : i + 12]) for i in range(0, 120, 12)]
    assert sum(len(fold) for fold in folds) == len(set().union(*folds))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tools/hold_out_people.py", "nowhere", "out"], "hold_out_people: nowhere: no such file"),
        (["tools/shuffle_records.py", "nowhere", "out"], "shuffle_records: nowhere: no such file"),
    ],
)
def test_faults_are_one_sentence(tmp_path, arguments, says):
    command = [sys.executable, str(ROOT / arguments[0]), *arguments[1:]]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1 and ended.stderr.startswith(says)


def test_the_expected_count_is_that_of_many_draws(tiny_records):
    records = open_records(tiny_records, tiny_records)
    generator = np.random.default_rng(0)
    draws = [
        len(np.unique(generator.choice(records.labels, 16, replace=False))) for _ in range(4000)
    ]
    assert batch_mixing._expected(records, 16) == pytest.approx(np.mean(draws), abs=0.1)


def test_random_access_mixes_as_a_permutation_does(tiny_records, tmp_path, monkeypatch, capsys):
    report = tmp_path / "rows.json"
    arguments = ["--records", str(tiny_records), "--batch-size", "16", "--epochs", "20"]
    monkeypatch.setattr(
        sys, "argv", ["x", *arguments, "--windows", "2", "60", "--json", str(report)]
    )
    batch_mixing.main()
    rows = {row["name"]: row["of_uniform"] for row in json.loads(report.read_text())["rows"]}
    assert rows["ours random-access"] > 0.97  # 140 batches: the mean has a spread of its own
    for reader in ("blocks", "window"):
        assert rows[f"ours {reader} of 2"] < rows[f"ours {reader} of 60"] < 1.02
    assert len(capsys.readouterr().out.splitlines()) == 7
