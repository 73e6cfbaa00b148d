# SPDX-License-Identifier: Apache-2.0
"""RFW in its published layout becomes one set with people and groups, and is verified."""

from __future__ import annotations

import pytest

from evaluation import __main__ as evaluation
from evaluation.groups import find_groups_of
from evaluation.pairs import read_pairs
from tests.runs import save_run
from tools.data import __main__ as data
from tools.data.rfw_pairs import find_pair_files, read_rfw

PEOPLE = {"African": ("m.0a", "m.0b", "m.0both"), "Asian": ("m.0c", "m.0d", "m.0both")}


@pytest.fixture
def rfw(tmp_path, make_face):
    """Return the folder RFW/test; the person m.0both stands under two groups."""
    for group, people in PEOPLE.items():
        for number, person in enumerate(people):
            for shot in (1, 2):
                path = tmp_path / "data" / group / person / f"{person}_{shot:04d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(make_face(10 * len(group) + number, shot))
        lines = [
            f"{people[fold % 3]}\t1\t2\n{people[fold % 3]}\t1\t{people[(fold + 1) % 3]}\t2\n"
            for fold in range(10)
        ]
        folder = tmp_path / "txts" / group
        folder.mkdir(parents=True)
        (folder / f"{group}_pairs.txt").write_text("".join(lines))
        (folder / f"{group}_people.txt").write_text("m.0a\t2\n")
    return tmp_path


def test_each_fold_has_the_pairs_of_every_group(rfw):
    pairs = read_rfw(rfw / "txts")
    assert len(pairs) == 40
    assert pairs[:3] == [
        ("African/m.0a/m.0a_0001", "African/m.0a/m.0a_0002", True, ("m.0a", "m.0a")),
        ("African/m.0a/m.0a_0001", "African/m.0b/m.0b_0002", False, ("m.0a", "m.0b")),
        ("Asian/m.0c/m.0c_0001", "Asian/m.0c/m.0c_0002", True, ("m.0c", "m.0c")),
    ]
    assert pairs[4].one == "African/m.0b/m.0b_0001"


def test_the_set_has_groups_and_verify_names_people_of_two_groups(rfw, capsys):
    out = rfw / "rfw.bin"
    assert data.main(["make-bin", str(rfw / "txts"), str(rfw / "data"), str(out)]) == 0
    assert "rfw.groups.txt: African, Asian\n" in capsys.readouterr().out
    groups = find_groups_of(read_pairs(out))
    assert groups.mixed == [("m.0both", ["African", "Asian"])]
    run = save_run(rfw / "run")
    assert (
        evaluation.main(["verify", "--model", str(run), "--sets", str(out), "--device", "cpu"]) == 0
    )
    said, error = capsys.readouterr()
    assert "rfw: m.0both is in several groups, got African, Asian" in error
    rows = [line.split()[:2] for line in said.splitlines() if line.startswith("A")]
    assert rows[-4:-2] == [["African", "20"], ["Asian", "20"]]


def test_malformed_lines_and_short_files_are_named(rfw):
    file = rfw / "txts" / "Asian" / "Asian_pairs.txt"
    text = file.read_text()
    file.write_text(text + "m.0c 1\n")
    with pytest.raises(ValueError, match="Asian_pairs.txt: line 21"):
        read_rfw(rfw / "txts")
    file.write_text("m.0c\t1\t2\n")
    with pytest.raises(ValueError, match="Asian_pairs.txt: must have at least 10 pairs, got 1"):
        read_rfw(rfw / "txts")
    assert find_pair_files(rfw / "data") == {} == find_pair_files(file)


def test_an_older_file_of_groups_is_refused(rfw, capsys):
    (rfw / "set.groups.txt").write_text("a\n")
    pairs = rfw / "txts" / "Asian" / "Asian_pairs.txt"
    words = ["make-bin", str(pairs), str(rfw / "data" / "Asian"), str(rfw / "set.bin")]
    assert data.main(words) == 2
    assert "set.groups.txt: must not exist, got an older file" in capsys.readouterr().err
