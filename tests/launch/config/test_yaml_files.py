# SPDX-License-Identifier: Apache-2.0
"""Search for configurations, and errors of unreadable files."""

from __future__ import annotations

import pytest

import launch.config.yaml_files
from launch.config.configuration import ConfigError
from launch.config.yaml_files import config_names, find_config, read_yaml


@pytest.fixture
def configs(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    (folder / "more").mkdir(parents=True)
    (folder / "one.yaml").touch()
    (folder / "more" / "two.yaml").touch()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(launch.config.yaml_files, "CONFIGS", folder)
    return folder


def test_an_existing_path_precedes_a_name_in_configs(configs, tmp_path):
    assert find_config("one.yaml") == configs / "one.yaml"
    (tmp_path / "work" / "one.yaml").touch()
    assert find_config("one.yaml").resolve() == tmp_path / "work" / "one.yaml"
    assert find_config("more/two.yaml") == configs / "more" / "two.yaml"


def test_a_path_in_the_home_folder_is_expanded(configs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "work"))
    (tmp_path / "work" / "mine.yaml").touch()
    assert find_config("~/mine.yaml") == tmp_path / "work" / "mine.yaml"
    with pytest.raises(
        ConfigError, match=r"^--cfg: the home folder of ~no-such-user-at-all cannot"
    ):
        find_config("~no-such-user-at-all/mine.yaml")


def test_an_unknown_name_lists_all_configurations(configs):
    with pytest.raises(ConfigError) as caught:
        find_config("three.yaml")
    assert str(caught.value) == (
        "--cfg: no such file, got 'three.yaml'; give a path or a name in configs/: more/two.yaml, "
        "one.yaml"
    )
    assert all(find_config(name).is_file() for name in config_names())


def test_yaml_files_are_parsed_and_errors_name_the_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("data: {batch_size: 3\noptim: 1\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: invalid YAML, got: .*line 2.*; fix that line"):
        read_yaml(path)
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read, got No such file"):
        read_yaml(tmp_path / "none.yaml")
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=r"a\.yaml: invalid YAML, got: "):
        read_yaml(path)
    path.write_text("# nothing\n")
    assert read_yaml(path) == {}
