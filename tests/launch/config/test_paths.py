# SPDX-License-Identifier: Apache-2.0
"""Expansion of ``~`` in paths on command lines and in configurations."""

from __future__ import annotations

import argparse
import pwd
import re
from pathlib import Path

import pytest

from launch.config.paths import NoHome, expand_home, home_path, is_url

ROOT = Path(__file__).resolve().parents[3]
NOBODY = "~no-such-user-at-all"


@pytest.fixture(autouse=True)
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~", "/home/me"),
        ("~/faces", "/home/me/faces"),
        ("faces", "faces"),
        ("/data/~/x", "/data/~/x"),
        ("./~x", "./~x"),
        ("", ""),
    ],
)
def test_home_folders_are_expanded(text, path):
    assert expand_home(text) == path
    assert home_path(text) == Path(path)


def test_the_home_folder_of_another_user_is_expanded():
    root = pwd.getpwuid(0)
    assert expand_home(f"~{root.pw_name}/faces") == f"{root.pw_dir.rstrip('/')}/faces"


def test_an_unknown_home_folder_is_refused():
    with pytest.raises(NoHome) as caught:
        expand_home(f"{NOBODY}/faces")
    assert str(caught.value) == (
        f"the home folder of {NOBODY} cannot be found, got '{NOBODY}/faces'; write an absolute "
        f"path, or ./{NOBODY}/faces for a folder of that name"
    )


def test_argparse_reports_an_unknown_home_folder(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=home_path)
    assert parser.parse_args(["--json=~/x.json"]).json == Path("/home/me/x.json")
    with pytest.raises(SystemExit):
        parser.parse_args([f"--json={NOBODY}/x"])
    assert f"the home folder of {NOBODY} cannot be found" in capsys.readouterr().err


def test_no_command_line_uses_unexpanded_paths():
    sources = [p for part in ("benchmarks", "launch", "tools") for p in (ROOT / part).rglob("*.py")]
    assert len(sources) > 40
    found = [str(path) for path in sources if re.search(r"\btype=Path\b", path.read_text())]
    assert not found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://bucket/set", True),
        ("file:///data/set", True),
        ("simplecache::s3://bucket/set", True),
        ("/data/set", False),
        ("data:set//x", False),
        ("./s3://x", False),
        ("", False),
    ],
)
def test_urls_are_told_from_paths(path, expected):
    assert is_url(path) is expected
