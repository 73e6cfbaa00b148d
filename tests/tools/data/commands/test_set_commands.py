# SPDX-License-Identifier: Apache-2.0
"""Commands on record sets: merge, split, filter, subset, unpack, stats."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.pairs import read_pairs
from evaluation.people import find_people
from pipeline.records.open import open_records
from pipeline.records.writer import write_record_set
from tests.conftest import face, faces
from tests.tools.data.sets import read_set, run, set_bytes, tree, write_people
from tools.data import record_sets, unpacking
from tools.data.unpacking import STATE_FOLDER

WRITING = ["merge", "split", "filter", "subset", "unpack", "shuffle"]
OPTIONS = {"split": ["--every", 2, "--pairs", 10], "subset": ["--people", 2]}


def names(folder: Path) -> list[str]:
    return json.loads((folder / "identities.json").read_text())


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """Return a set of six people p0 to p5 with 1 to 6 images."""
    folder = tmp_path_factory.mktemp("packed")
    write_people(folder / "in", {f"p{n}": n + 1 for n in range(6)})
    assert run("pack", folder / "in", folder / "set") == 0
    return folder / "set"


def images(folder: Path) -> dict[str, list[bytes]]:
    """Return the images of each identity by name."""
    found: dict[str, list[bytes]] = {name: [] for name in names(folder)}
    for label, jpeg in read_set(folder):
        found[names(folder)[label]].append(jpeg)
    return found


def shots(person: int) -> list[bytes]:
    return [face(person, shot) for shot in range(person + 1)]


def test_stacked_sets_keep_all_people_apart(packed, make_records, tmp_path):
    other = make_records(2, 3)
    assert run("merge", packed, other, tmp_path / "out") == 0
    expected = {f"p{n}": shots(n) for n in range(6)}
    expected |= {str(n): [face(n, shot) for shot in range(3)] for n in range(2)}
    assert images(tmp_path / "out") == expected
    records = open_records(tmp_path / "out", tmp_path / "scan")
    assert records.notices == () and records.num_classes == 8
    assert run("merge", packed, make_copy(packed, tmp_path), tmp_path / "twice") == 0
    assert names(tmp_path / "twice") == [f"{k}-p{n}" for k in range(2) for n in range(6)]


def make_copy(folder: Path, into: Path) -> Path:
    (into / "copy").mkdir()
    for path in folder.iterdir():
        (into / "copy" / path.name).write_bytes(path.read_bytes())
    return into / "copy"


def test_shared_labels_and_names_join_the_images_of_a_person(packed, tmp_path):
    write_people(tmp_path / "in", {"p3": 1, "a": 1})
    (tmp_path / "in" / "p3" / "0.jpg").write_bytes(face(3, 50))
    assert run("pack", tmp_path / "in", tmp_path / "other") == 0
    assert run("merge", packed, tmp_path / "other", tmp_path / "named", "--labels", "names") == 0
    found = images(tmp_path / "named")
    assert list(found) == ["a", *(f"p{n}" for n in range(6))]
    assert found["p3"] == [*shots(3), face(3, 50)]
    assert run("merge", packed, tmp_path / "other", tmp_path / "same", "--labels", "shared") == 0
    assert Counter(n for n, _ in read_set(tmp_path / "same")) == {
        0: 2,
        1: 3,
        2: 3,
        3: 4,
        4: 5,
        5: 6,
    }


def test_names_are_refused_for_sets_without_names(packed, make_records, tmp_path, capsys):
    assert run("merge", packed, make_records(2, 2), tmp_path / "out", "--labels", "names") == 2
    assert "--labels names: needs identities.json in every set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--min-images", 3], [2, 3, 4, 5]),
        (["--max-images", 2], [0, 1]),
        (["--identities", "p4, p1"], [1, 4]),
        (["--drop-identities", "@LIST"], [0, 3, 4, 5]),
        (["--drop-keys", "1-20"], [5]),
        (["--keys", "1,3-6", "--min-images", 3], [2]),
    ],
)
def test_filter_keeps_what_its_options_name(packed, tmp_path, options, kept):
    (tmp_path / "list").write_text("\ufeffp1\r\n\r\np2\r\n")
    options = [str(option).replace("@LIST", f"@{tmp_path}/list") for option in options]
    assert run("filter", packed, tmp_path / "out", *options) == 0
    expected = {f"p{n}": shots(n) for n in kept}
    if "--drop-keys" in options:
        expected = {"p5": shots(5)[-1:]}
    assert images(tmp_path / "out") == expected


def test_identities_of_a_set_without_names_are_labels(make_records, tmp_path):
    source = make_records(12, 2)
    assert run("filter", source, tmp_path / "out", "--identities", "3,7-9") == 0
    assert names(tmp_path / "out") == ["3", "7", "8", "9"]
    assert [n for n, _ in read_set(tmp_path / "out")] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["filter", "--identities", "P3"], "unknown identity, got 'P3'; did you mean 'p3'?"),
        (["filter", "--identities", "p9"], "got 'p9'; identities.json lists the names"),
        (["filter", "--identities", ""], "--identities: must contain at least one entry"),
        (["filter", "--identities", "@none"], "the file none cannot be read"),
        (["filter", "--identities", "@/dev/zero"], "cannot be read, got a folder or a special"),
        (["filter", "--keys", "5-3"], "each entry must be a key or a range"),
        (["filter", "--keys", "0"], "the set has no image of this key, got 0"),
        (["filter", "--min-images", 7], "at least one image must be selected, got 0 of 21"),
        (["filter", "--min-images", 0], "--min-images: must be in 1 .."),
        (["subset"], "needs --people or --images-per-person"),
        (["subset", "--people", 7], "the set has 6 identities with images, got 7"),
        (["split", "--every", 1], "--every: must be in 2 .."),
        (["split", "--every", 6, "--pairs", 10], "at least 10 pairs of held-out images"),
        (["split", "--val-people", 6], "--val-people: must be at least 2"),
        (["split", "--every", 2, "--val-people", 2], "--every: excludes --val-people"),
    ],
)
def test_wrong_options_get_one_sentence_and_nothing_is_written(
    packed, tmp_path, capsys, arguments, says
):
    command, *options = arguments
    assert run(command, packed, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_subset_draws_people_and_images_from_its_seed(packed, tmp_path):
    options = ["--people", 4, "--images-per-person", 2]
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("subset", packed, tmp_path / out, *options, "--seed", seed) == 0
    assert set_bytes(tmp_path / "a") == set_bytes(tmp_path / "b") != set_bytes(tmp_path / "c")
    for name, jpegs in images(tmp_path / "a").items():
        of_person = shots(int(name[1:]))
        assert len(jpegs) == min(2, len(of_person))
        assert sorted(map(of_person.index, jpegs)) == list(map(of_person.index, jpegs))
    assert len(names(tmp_path / "a")) == 4


def test_split_holds_people_out_and_pairs_their_images(make_records, tmp_path):
    source = make_records(60, 6)
    assert run("split", source, tmp_path / "out", "--every", 3, "--pairs", 60) == 0
    person = {jpeg: label for label, jpeg in read_set(source)}
    kept = [person[jpeg] for _, jpeg in read_set(tmp_path / "out")]
    assert sorted({label for label, _ in read_set(tmp_path / "out")}) == list(range(40))
    pairs = read_pairs(tmp_path / "out" / "held_out.bin")
    shown = [person[bytes(jpeg)] for jpeg in pairs.images]
    assert set(kept) == set(range(60)) - set(range(2, 60, 3)) and not set(kept) & set(shown)
    same = [a == b for a, b in zip(shown[::2], shown[1::2], strict=True)]
    assert same == list(pairs.issame) and sum(same) == 30
    assert len({frozenset(p) for p in zip(pairs.images[::2], pairs.images[1::2])}) == 60
    people = find_people(pairs)
    assert people.kind == "people"
    assert len({*zip(people.numbers, shown)}) == len({*shown}) == len({*people.numbers})
    folds = [set(shown[i : i + 12]) for i in range(0, 120, 12)]
    assert sum(len(fold) for fold in folds) == len(set().union(*folds))


def test_unpack_writes_one_folder_per_identity(packed, make_records, tmp_path):
    assert run("unpack", packed, tmp_path / "named") == 0
    expected, key = {}, 1
    for person in range(6):
        for jpeg in shots(person):
            expected[f"p{person}/{key:02d}.jpg"] = jpeg
            key += 1
    assert tree(tmp_path / "named") == expected
    assert run("unpack", make_records(11, 1), tmp_path / "numbered") == 0
    assert sorted(path.name for path in (tmp_path / "numbered").iterdir()) == [
        f"{label:02d}" for label in range(11)
    ]


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..", "", ".a", "a/b", "x" * 300, "p1"])
def test_names_that_are_no_folder_names_are_replaced_by_labels(packed, tmp_path, name):
    copy = make_copy(packed, tmp_path)
    (copy / "identities.json").write_text(json.dumps([name, *(f"p{n}" for n in range(1, 6))]))
    before = tree(tmp_path)
    assert run("unpack", copy, tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == list("012345")
    assert {k: v for k, v in tree(tmp_path).items() if not k.startswith("out/")} == before


def test_an_interrupted_unpack_resumes_and_does_not_look_complete(
    packed, make_records, tmp_path, monkeypatch, capsys
):
    out, write = tmp_path / "out", unpacking._write_images
    run("unpack", packed, tmp_path / "expected")

    def failing(records, rows, folder):
        write(records, rows, folder)
        if len(rows) == 4:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(unpacking, "_write_images", failing)
        assert run("unpack", packed, out) == 2
    assert "No space left on device; remove the cause and repeat" in capsys.readouterr().err
    assert (out / STATE_FOLDER).is_dir() and not (out / "p3").exists()
    assert run("unpack", make_records(2, 2), out) == 2
    assert run("unpack", packed, out) == 0
    assert tree(out) == tree(tmp_path / "expected")


@pytest.mark.parametrize("command", WRITING)
def test_a_dry_run_writes_nothing(packed, tmp_path, capsys, command):
    options = OPTIONS.get(command, [])
    assert run(command, packed, tmp_path / "out", *options, "--dry-run") == 0
    assert capsys.readouterr().out.startswith("dry run: nothing is written\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", WRITING)
def test_every_command_refuses_an_output_folder_that_is_in_use(packed, tmp_path, capsys, command):
    options, copy = OPTIONS.get(command, []), make_copy(packed, tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("kept")
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = tree(tmp_path)
    for out in (copy, copy / "new", tmp_path / "full", tmp_path / "file", tmp_path / "loop"):
        assert run(command, copy, out, *options) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and "; " in error
    assert tree(tmp_path) == before


@pytest.mark.parametrize("command", [*WRITING, "stats"])
def test_every_command_refuses_a_damaged_set_and_leaves_no_files(
    make_records, tmp_path, capsys, command
):
    source = make_records(4, 3)
    records = open_records(source, tmp_path / "scan")
    with open(source / "train.rec", "r+b") as file:
        file.seek(int(records.offsets[4]) + 4)
        file.write(b"\xff\xff\xff\x1f")
    out = [tmp_path / "out"] * (command != "stats")
    options = {"subset": ["--images-per-person", 3], "split": ["--every", 2, "--pairs", 10]}
    assert run(command, source, *out, *options.get(command, [])) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    if command != "unpack":
        assert not (tmp_path / "out").exists() or tree(tmp_path / "out") == {}
    for damaged in (tmp_path / "none", tmp_path / "scan"):
        assert run(command, damaged, *out, *options.get(command, [])) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("content", ["[1, 2]", "{", '["a"]', "[" * 100_000])
def test_a_damaged_file_of_names_is_refused(packed, tmp_path, capsys, content):
    copy = make_copy(packed, tmp_path)
    (copy / "identities.json").write_text(content)
    assert run("unpack", copy, tmp_path / "out") == 2
    assert "remove the file to use the set without names" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_identity_is_enough_for_every_command_that_needs_no_second(tmp_path):
    write_people(tmp_path / "in", {"only": 1})
    assert run("pack", tmp_path / "in", tmp_path / "set") == 0
    for command in ("merge", "filter", "subset", "unpack", "shuffle"):
        options = ["--people", 1] if command == "subset" else []
        assert run(command, tmp_path / "set", tmp_path / command, *options) == 0
    assert run("stats", tmp_path / "set", "--png", tmp_path / "a.png") == 0


def test_what_a_killed_command_left_does_not_disturb_the_next_one(packed, tmp_path):
    out = tmp_path / "out"
    (out / record_sets.STAGING_FOLDER).mkdir(parents=True)
    (out / record_sets.STAGING_FOLDER / "train.rec").write_text("half")
    (out / ".shuffle-x").mkdir()
    (out / ".train.rec.host-1.part").write_text("half")
    assert run("filter", packed, out) == 0
    assert sorted(os.listdir(out)) == ["identities.json", "property", "train.idx", "train.rec"]
    assert {n: (out / n).read_bytes() for n in ("train.rec", "train.idx")} == {
        n: (packed / n).read_bytes() for n in ("train.rec", "train.idx")
    }


def test_stats_counts_identities_images_and_formats(tmp_path, capsys):
    progressive = cv2.imencode(
        ".jpg", np.full((112, 112, 3), 90, np.uint8),
        [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 70,
         cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
    )[1].tobytes()  # fmt: skip
    write_record_set(tmp_path / "set", [*faces(3, 4), (3, progressive)], 5)
    options = ["--json", tmp_path / "a.json", "--png", tmp_path / "a.png"]
    assert run("stats", tmp_path / "set", *options) == 0
    facts = json.loads((tmp_path / "a.json").read_text())
    assert (facts["images"], facts["identities"], facts["num_classes"]) == (13, 4, 5)
    assert facts["identities_with_one_image"] == 1
    assert facts["images_per_identity"]["mean"] == 3.25
    assert facts["sample"]["formats"] == {"JPEG": 12, "progressive JPEG": 1}
    assert facts["sample"]["chroma_sampling"] == {"4:2:0": 12, "4:4:4": 1}
    assert facts["sample"]["jpeg_quality"]["smallest"] == 70
    assert facts["sample"]["jpeg_quality"]["largest"] == 95
    assert "images per identity" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "a.png")).shape[0] == 480
    before = tree(tmp_path)
    assert run("stats", tmp_path / "set", "--json", tmp_path / "b.json", "--dry-run") == 0
    assert tree(tmp_path) == before
    assert run("stats", tmp_path / "set", "--png", tmp_path / "none" / "a.png") == 2
    assert run("stats", tmp_path / "set", "--json", tmp_path / "set" / "train.rec") == 2
    assert tree(tmp_path) == before
