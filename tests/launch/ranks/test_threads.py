# SPDX-License-Identifier: Apache-2.0
"""Number of OpenMP threads of a rank."""

from __future__ import annotations

import os

import pytest

from launch.ranks.threads import share_cores


@pytest.fixture
def environment(monkeypatch):
    variables: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", variables)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    return variables


def test_a_single_rank_uses_all_cores(environment):
    assert share_cores() == 8
    assert environment["OMP_NUM_THREADS"] == "8"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize(("ranks", "threads"), [(2, 4), (3, 2), (8, 1), (20, 1)])
def test_the_ranks_of_a_host_divide_its_cores(environment, ranks, threads):
    environment["HOROVOD_LOCAL_SIZE"] = str(ranks)
    assert share_cores() == threads
    assert environment["OMP_NUM_THREADS"] == str(threads)


def test_thread_settings_of_the_user_have_precedence(environment):
    environment |= {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE", "HOROVOD_LOCAL_SIZE": "4"}
    assert share_cores() == 3
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"


def test_a_list_of_nested_levels_is_not_changed(environment):
    environment["OMP_NUM_THREADS"] = "4,2"
    assert share_cores() == 8
    assert environment["OMP_NUM_THREADS"] == "4,2"
