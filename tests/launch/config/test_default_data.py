# SPDX-License-Identifier: Apache-2.0
"""The record set that is used if the configuration names none."""

from __future__ import annotations

import pytest

from launch.config.configuration import ConfigError, build_config
from launch.config.default_data import add_default_records, find_records
from tests.launch.config.test_cli import HEADS, NETS


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FACES_DIR", raising=False)
    return tmp_path


def put_set(home, name):
    folder = home / ".mxnet" / "datasets" / "face" / name
    folder.mkdir(parents=True)
    (folder / "train.rec").touch()
    return str(folder)


def test_the_variable_precedes_the_folders_of_gluonfr(home, monkeypatch):
    assert find_records() == ""
    ms1m = put_set(home, "ms1m")
    assert find_records() == ms1m
    emore = put_set(home, "emore")
    assert find_records() == emore
    monkeypatch.setenv("FACES_DIR", "/my/faces")
    assert find_records() == "/my/faces"


def test_a_folder_without_records_is_no_record_set(home):
    (home / ".mxnet" / "datasets" / "face" / "emore").mkdir(parents=True)
    assert find_records() == ""


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({}, True),
        ({"data": None}, True),
        ({"data": {"records": None}}, True),
        ({"data": {"batch_size": 4}}, True),
        ({"data": {"records": []}}, False),
        ({"data": {"records": ""}}, False),
        ({"data": {"records": "/set"}}, False),
        ({"data": {"loader": "synthetic"}}, False),
        ({"data": "text"}, False),
    ],
)
def test_only_missing_records_are_added(raw, found, home):
    folder, before = put_set(home, "emore"), str(raw)
    add_default_records(raw)
    if found:
        assert raw["data"]["records"] == [folder]
    else:
        assert str(raw) == before


def test_the_refusal_names_the_ways_to_name_a_record_set(home):
    raw = {"net": {"name": "net"}, "head": {"name": "head"}, "train": {"epochs": 1}}
    add_default_records(raw)
    with pytest.raises(ConfigError) as error:
        build_config(raw, NETS, HEADS)
    for way in ("data.records=FOLDER", "FACES_DIR", "~/.mxnet/datasets/face/emore or ms1m"):
        assert way in str(error.value)
