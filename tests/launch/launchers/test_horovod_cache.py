# SPDX-License-Identifier: Apache-2.0
"""horovodrun keeps its cache in the home folder only where it can write."""

from __future__ import annotations

import pytest

from launch.launchers import hosts, local
from launch.launchers.horovod_cache import FOLDER, cache_options
from launch.launchers.options import Host


def test_a_writable_home_keeps_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_options() == cache_options() == []
    assert (tmp_path / FOLDER).is_dir()


@pytest.mark.parametrize("home", ["/proc", "/nonexistent/home"])
def test_an_unwritable_home_switches_the_cache_off(monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    assert cache_options() == ["--disable-cache"]
    assert "--disable-cache" in local.build_command(2, [])
    assert "--disable-cache" in hosts.build_command([Host("a", 2)], [], None, None, None)


def test_a_file_in_place_of_the_folder_switches_the_cache_off(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / FOLDER).write_text("")
    assert cache_options() == ["--disable-cache"]
