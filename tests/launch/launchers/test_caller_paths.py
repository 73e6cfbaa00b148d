# SPDX-License-Identifier: Apache-2.0
"""Relative paths on the command line of a launcher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.launchers.caller_paths import resolve_arguments

PROJECT = Path("/code")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("data.records=set", "data.records=/home/me/set"),
        ("data.records=/set", "data.records=/set"),
        ("eval.sets=[a, '/b c']", 'eval.sets=["/home/me/a", "/b c"]'),
        ("run.dir=../out", "run.dir=/home/me/../out"),
        ("train.pretrained=runs/a-001", "train.pretrained=/home/me/runs/a-001"),
        ("train.pretrained=", "train.pretrained="),
        ("data.records=~/set", "data.records=~/set"),
        ("data.records=s3://bucket/set", "data.records=s3://bucket/set"),
        ("data.records=${FACES_DIR}", "data.records=${FACES_DIR}"),
        ("data.records=[a", "data.records=[a"),
        ("data.records={a: b}", "data.records={a: b}"),
        ("run.name=a", "run.name=a"),
        ("optim.lr=0.1", "optim.lr=0.1"),
    ],
)
def test_paths_become_absolute_and_other_values_stay(given, expected):
    arguments = ["--cfg", "demo.yaml", given]
    assert resolve_arguments(arguments, Path("/home/me"), PROJECT) == [
        *("--cfg", "demo.yaml"),
        expected,
    ]


def test_deep_brackets_stay_unchanged():
    arguments = ["data.records=" + "[" * 20_000]
    assert resolve_arguments(arguments, Path("/home/me"), PROJECT) == arguments


def test_an_existing_configuration_of_the_caller_is_used(tmp_path):
    (tmp_path / "mine.yaml").touch()
    path = str(tmp_path / "mine.yaml")
    assert resolve_arguments(["--cfg", "mine.yaml"], tmp_path, PROJECT) == ["--cfg", path]
    assert resolve_arguments(["--cfg=mine.yaml"], tmp_path, PROJECT) == [f"--cfg={path}"]
    assert resolve_arguments(["--cfg"], tmp_path, PROJECT) == ["--cfg"]


def test_nothing_changes_in_the_project_folder():
    # A run that was started there resumes only with an equal text in its configuration.
    arguments = ["--cfg", "demo.yaml", "data.records=data/x"]
    assert resolve_arguments(arguments, PROJECT, PROJECT) == arguments


def test_quotes_and_characters_of_any_script_survive():
    (text,) = resolve_arguments(["data.records=[it's, 顔]"], Path('/a"b'), PROJECT)
    assert json.loads(text.partition("=")[2]) == ["/a\"b/it's", '/a"b/顔']
