# SPDX-License-Identifier: Apache-2.0
"""Arguments for a record set of the user, its run name, and the line that states the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from launch.config.yaml_files import config_names
from launch.launchers import local
from launch.launchers.options import UsageError
from launch.launchers.own_data import PREFIX, add_own_data, run_name

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def faces(tmp_path):
    folder = tmp_path / "it's [a] #set: x"
    folder.mkdir()
    return folder


def value_of(arguments, key):
    (text,) = [a.partition("=")[2] for a in arguments if a.startswith(f"{key}=")]
    return yaml.safe_load(text)


def test_any_folder_name_is_one_record_set(faces):
    arguments, line = add_own_data(["train.epochs=1"], faces.name, faces.parent)
    assert value_of(arguments, "data.records") == [str(faces)]
    assert value_of(arguments, "eval.sets") == []
    assert arguments[:2] == ["--cfg", "own.yaml"]
    assert arguments[-1] == "train.epochs=1"  # later, so it has precedence
    assert line.startswith(f"own data {faces}  0 verification sets  run name own-it_s_a_set_x-")
    assert "  recipe own.yaml: MobileFaceNet with ArcFace for your own record set" in line
    assert "\n" not in line and "CFG=NAME.yaml selects another recipe" in line


def test_verification_sets_of_the_folder_are_used(faces):
    for name in ("lfw.bin", "cfp_fp.bin"):
        (faces / name).touch()
    arguments, line = add_own_data([], str(faces), Path("/"))
    assert value_of(arguments, "eval.sets") == [str(faces)]
    assert "  2 verification sets  " in line


@pytest.mark.parametrize("given", [["--cfg", "demo.yaml"], ["--cfg=demo.yaml"]])
def test_a_chosen_recipe_is_stated(given, faces):
    arguments, line = add_own_data(given, str(faces), Path("/"))
    assert "own.yaml" not in arguments
    assert "  recipe demo.yaml: MobileFaceNet at half width with ArcFace on rendered sample" in line


@pytest.mark.parametrize("data", ["", "nowhere", "/nowhere"])
def test_a_folder_that_does_not_exist_is_refused(data, tmp_path):
    with pytest.raises(UsageError) as error:
        add_own_data([], data, tmp_path)
    assert str(error.value) == (
        f"launch.local: --data must be an existing folder, got {data!r}; name the folder that "
        "contains train.rec, train.idx and property"
    )


def test_a_recipe_that_does_not_exist_is_refused(faces):
    with pytest.raises(UsageError, match="^--cfg: no such file, got 'nosuch.yaml'; "):
        add_own_data(["--cfg", "nosuch.yaml"], str(faces), Path("/"))


def test_run_names_cannot_collide():
    # triplet.yaml, for example, starts from runs/faces-001, the run of faces.yaml.
    names = [run_name(Path(p)) for p in ("/a/faces", "/b/faces", "/", "/..", "/a/.x", "/a/顔 1")]
    assert len(set(names)) == len(names)
    assert all(name.startswith(PREFIX) and name == Path(name).name for name in names)
    assert not [name for name in config_names() if name.startswith(PREFIX)]
    assert len(run_name(Path("/" + "x" * 255))) < 100


def test_the_launcher_states_the_recipe_before_it_starts_the_ranks(faces, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(local, "supervise", lambda *given: started.append(given[0]) or 0)
    monkeypatch.chdir(faces.parent)
    assert local.main(["-np", "2", "--data", faces.name]) == 0
    assert value_of(started[0], "data.records") == [str(faces)]
    assert capsys.readouterr().out.startswith(f"own data {faces}  ")
    assert local.main(["--data", "nowhere"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("launch.local: --data must be an existing fol")
