# SPDX-License-Identifier: Apache-2.0
"""Sample faces: reproducible bytes, correct format, and no identification by colour."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mxnet import recordio

from evaluation.pairs import read_pairs
from evaluation.people import find_people
from tools import make_sample_faces
from tools.sample_faces import baselines
from tools.sample_faces.pairs import FOLDS, choose_pairs, look_number_of
from tools.sample_faces.people import Person, draw_person, look_distance

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--people", "3", "--images-per-person", "2", "--pairs-people", "20", "--pairs", "20"]
FILES = ["made_with.json", "property", "sample_val.bin", "sample_val.people.txt"]
FILES += ["train.idx", "train.rec"]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faces") / "new" / "set"
    assert make_sample_faces.main([str(folder), *SMALL, "--workers", "1"]) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_bytes_depend_on_the_seed_but_not_on_the_workers(small, tmp_path):
    script = ROOT / "tools" / "make_sample_faces.py"
    subprocess.run(
        [sys.executable, script, "again", *SMALL, "--workers", "2"], cwd=tmp_path, check=True
    )
    assert list(contents(small)) == FILES
    assert contents(tmp_path / "again") == contents(small)


def test_another_seed_makes_other_faces(small, tmp_path):
    make_sample_faces.main([str(tmp_path), *SMALL, "--seed", "1", "--workers", "1"])
    assert contents(tmp_path)["train.rec"] != contents(small)["train.rec"]


def test_a_complete_set_is_not_rendered_again(small, monkeypatch, capsys):
    monkeypatch.setattr(make_sample_faces, "make", lambda *_: pytest.fail("rendered again"))
    assert make_sample_faces.main([str(small), *SMALL]) == 0
    assert "already made" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["argument", "file"])
def test_a_changed_argument_or_a_missing_file_renders_the_set_again(
    small, tmp_path, monkeypatch, change
):
    for name, data in contents(small).items():
        (tmp_path / name).write_bytes(data)
    made = []
    monkeypatch.setattr(make_sample_faces, "make", lambda *_: made.append(1))
    if change == "file":
        (tmp_path / "property").unlink()
    make_sample_faces.main([str(tmp_path), *SMALL, *(["--seed", "2"] * (change == "argument"))])
    assert made


def test_records_are_sorted_by_person_with_identity_records_at_the_end(small):
    reader = recordio.MXIndexedRecordIO(str(small / "train.idx"), str(small / "train.rec"), "r")
    records = [recordio.unpack(reader.read_idx(key)) for key in reader.keys]
    assert list(records[0][0].label) == [7.0, 10.0]
    assert [header.label for header, _ in records[1:7]] == [0, 0, 1, 1, 2, 2]
    assert [list(header.label) for header, _ in records[7:]] == [[1, 3], [3, 5], [5, 7]]
    for _, jpeg in records[1:7]:
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (112, 112, 3)
        assert image.std() > 5
    assert (small / "property").read_text() == "3,112,112\n"


def test_the_verification_set_is_balanced(small):
    pairs = read_pairs(small / "sample_val.bin")
    assert np.asarray(pairs.issame).reshape(FOLDS, -1).mean(1).tolist() == [0.5] * FOLDS
    assert len(set(pairs.images)) == len(pairs.images) == 40
    people = find_people(pairs)
    assert people.kind == "people" and len(set(people.numbers)) == 20


def test_no_person_is_in_training_set_and_pairs(tmp_path, monkeypatch):
    rendered: list[list[int]] = []

    def record_jobs(jobs, workers):
        rendered.append([number for _, number, _, _ in jobs])
        return iter([b"\xff\xd8"] * len(jobs))

    monkeypatch.setattr(make_sample_faces, "render_all", record_jobs)
    assert make_sample_faces.main([str(tmp_path), *SMALL]) == 0
    in_pairs, trained = map(set, rendered)
    assert len(in_pairs) == 20
    assert trained == {0, 1, 2}
    assert not in_pairs & trained


def cast(count: int) -> dict[int, Person]:
    looks = make_sample_faces.LOOKS
    return {n: draw_person(0, n, look_number_of(n, count, looks)) for n in range(count)}


def test_no_person_is_in_two_folds():
    people = cast(40)
    pairs = choose_pairs(list(people), people.get, 200, seed=0)
    for index, pair in enumerate(pairs):
        for number, _ in (pair.first, pair.second):
            assert number * FOLDS // 40 == index * FOLDS // 200
        assert (pair.first[0] == pair.second[0]) == pair.same


def test_different_people_of_a_pair_have_similar_looks():
    people = cast(100)
    pairs = choose_pairs(list(people), people.get, 200, seed=0)
    matched = [
        look_distance(people[p.first[0]].look, people[p.second[0]].look)
        for p in pairs
        if not p.same
    ]
    anyone = [look_distance(people[a].look, people[b].look) for a in range(100) for b in range(a)]
    assert np.mean(matched) < 0.25 * np.mean(anyone)


def test_the_threshold_of_a_fold_comes_from_the_other_folds():
    same = np.tile([True, False], 50)
    similarity = np.where(same, 0.8, 0.2)
    assert baselines.ten_fold_accuracy(similarity, same) == 1.0
    similarity[:10] -= 5.0  # only the first fold would choose another threshold
    assert baselines.ten_fold_accuracy(similarity, same) == pytest.approx(0.95)


def test_baselines_print_one_line_each(small, capsys):
    assert baselines.main([str(small)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(0.0 <= float(line.split()[-1]) <= 1.0 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--pairs", "30"], "must be a multiple of 20"),
        (["--people", "1"], "--people: must be at least 2, got 1"),
        (["--workers", "0"], "--workers: must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(tmp_path, capsys, arguments, says):
    assert make_sample_faces.main([str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_unwritable_folder_is_refused_in_one_sentence(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    script = ROOT / "tools" / "make_sample_faces.py"
    run = subprocess.run(
        [sys.executable, script, tmp_path / place, *SMALL], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "cannot be written" in run.stderr


def test_baselines_refuse_a_folder_without_a_set(tmp_path, capsys):
    assert baselines.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
