# SPDX-License-Identifier: Apache-2.0
"""Checks of the argument SET of commands on record sets."""

from __future__ import annotations

import json
import os

import pytest

from tests.tools.data.sets import run, write_people
from tools.data.record_sets import check_sources


@pytest.fixture
def folder(tmp_path):
    write_people(tmp_path / "in", {"a": 1, "b": 1})
    assert run("pack", tmp_path / "in", tmp_path / "set") == 0
    return tmp_path


def test_folders_and_rec_files_are_sets(folder):
    run("pack", folder / "in", folder / "other")
    check_sources([folder / "set", folder / "other" / "train.rec"])


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            ["nowhere"],
            "must be a folder with train.rec, or a .rec file, got no such file or folder",
        ),
        (["pipe"], "must be a folder with train.rec, or a .rec file, got a special file"),
        (["in"], "got a folder without a .rec file"),
        (["set", "set/train.rec"], "SET: each set must be named once, got "),
        (["set", "link"], "SET: each set must be named once, got "),
        (["set", "lone.rec"], "lone.idx: no such file (needed beside lone.rec)"),
    ],
)
def test_other_sources_are_one_sentence_about_set(folder, names, problem):
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("set")
    (folder / "lone.rec").write_bytes(b"x")
    with pytest.raises(ValueError) as error:
        check_sources([folder / name for name in names])
    text = str(error.value)
    assert problem in text and "SET" in text and "data.records" not in text and "; " in text


def test_equal_names_of_one_set_stay_different_people(folder):
    (folder / "set" / "identities.json").write_text('["Ann", "Ann"]')
    assert run("unpack", folder / "set", folder / "out") == 0
    assert sorted(path.name for path in (folder / "out").iterdir() if path.is_dir()) == [
        "0", "1"
    ]  # fmt: skip
    assert run("filter", folder / "set", folder / "copy", "--min-images", "1") == 0
    assert json.loads((folder / "copy" / "identities.json").read_text()) == ["Ann", "Ann"]


def test_an_output_below_a_file_is_refused(folder, capsys):
    (folder / "file").write_bytes(b"")
    assert run("unpack", folder / "set", folder / "file" / "out") == 2
    assert "file: must be a folder with write access, got a file; choose" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "stats", "unpack", "merge", "shuffle", "split"])
def test_every_command_refuses_a_missing_set(tmp_path, capsys, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    out = [] if command in ("check", "stats") else ["out"]
    assert run(command, "nowhere", *out) == 2
    assert capsys.readouterr().err.startswith("error: SET: nowhere must be a folder with train.rec")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["property", "identities.json"])
def test_a_pipe_beside_the_records_is_not_waited_for(folder, capsys, name):
    (folder / "set" / name).unlink()
    os.mkfifo(folder / "set" / name)
    assert run("stats", folder / "set") == (2 if name == "property" else 0)
    assert ("A special file" in capsys.readouterr().err) == (name == "property")
