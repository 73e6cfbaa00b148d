# SPDX-License-Identifier: Apache-2.0
"""Paths that begin with ``~``, on every command line and in every key that names a path."""

from __future__ import annotations

import argparse
import pwd
import re
from pathlib import Path

import pytest

from launch.config.paths import NoHome, expand_home, home_path

ROOT = Path(__file__).resolve().parents[3]
NOBODY = "~no-such-user-at-all"


@pytest.fixture(autouse=True)
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("~", "/home/me"),
        ("~/faces", "/home/me/faces"),
        ("faces", "faces"),
        ("/data/~/x", "/data/~/x"),
        ("./~x", "./~x"),
        ("", ""),
    ],
)
def test_home_folders_are_put_in(text, whole):
    assert expand_home(text) == whole
    assert home_path(text) == Path(whole)


def test_the_home_of_another_user():
    root = pwd.getpwuid(0)
    assert expand_home(f"~{root.pw_name}/faces") == f"{root.pw_dir.rstrip('/')}/faces"


def test_a_home_that_cannot_be_found():
    with pytest.raises(NoHome) as caught:
        expand_home(f"{NOBODY}/faces")
    assert str(caught.value) == (
        f"the home folder of {NOBODY} cannot be found, got '{NOBODY}/faces'; write the whole path, "
        f"or ./{NOBODY}/faces for a folder of that name"
    )


def test_an_argument_says_the_same(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=home_path)
    assert parser.parse_args(["--json=~/x.json"]).json == Path("/home/me/x.json")
    with pytest.raises(SystemExit):
        parser.parse_args([f"--json={NOBODY}/x"])
    assert f"the home folder of {NOBODY} cannot be found" in capsys.readouterr().err


def test_no_command_line_takes_a_path_as_it_is_written():
    sources = [p for part in ("benchmarks", "launch", "tools") for p in (ROOT / part).rglob("*.py")]
    assert len(sources) > 40
    found = [str(path) for path in sources if re.search(r"\btype=Path\b", path.read_text())]
    assert not found
