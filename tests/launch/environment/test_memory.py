# SPDX-License-Identifier: Apache-2.0
"""Available memory: the smallest of the system's and of the limits of all control groups."""

from __future__ import annotations

import pytest

from launch.environment.memory import available_memory

MIB = 1 << 20


@pytest.fixture
def host(tmp_path):
    """Return a function that writes files below a root folder, and returns the folder."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / FILES[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))
        return tmp_path

    write(meminfo="MemTotal: 9000000 kB\nMemFree: 1 kB\nMemAvailable:    8192000 kB\n")
    return write


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"
FILES = {
    "meminfo": "proc/meminfo",
    "cgroup": "proc/self/cgroup",
    "limit": f"{V2}/job/step/memory.max",
    "usage": f"{V2}/job/step/memory.current",
    "stat": f"{V2}/job/step/memory.stat",
    "outer_limit": f"{V2}/job/memory.max",
    "outer_usage": f"{V2}/job/memory.current",
    "root_limit": f"{V2}/memory.max",
    "root_usage": f"{V2}/memory.current",
    "v1_limit": f"{V1}/docker/memory.limit_in_bytes",
    "v1_usage": f"{V1}/docker/memory.usage_in_bytes",
    "v1_stat": f"{V1}/docker/memory.stat",
}


def test_without_a_limit_the_system_counts(host):
    assert available_memory(host()) == 8000 * MIB
    assert available_memory(host(cgroup="0::/job/step\n", limit="max\n", usage=1)) == 8000 * MIB


def test_the_limit_of_the_group_counts_without_its_page_cache(host):
    stat = f"anon 5\ninactive_file {50 * MIB}\nactive_file 3\n"
    root = host(cgroup="0::/job/step\n", limit=1000 * MIB, usage=300 * MIB, stat=stat)
    assert available_memory(root) == 750 * MIB


def test_the_limit_of_an_outer_group_counts(host):
    root = host(cgroup="0::/job/step\n", limit=1000 * MIB, usage=MIB)
    assert available_memory(root) == 999 * MIB
    assert available_memory(host(outer_limit=500 * MIB, outer_usage=100 * MIB)) == 400 * MIB


@pytest.mark.parametrize("path", ["/", "/../..", "/unseen/by/this/container"])
def test_a_container_that_sees_only_its_own_group_has_a_limit(host, path):
    root = host(cgroup=f"0::{path}\n", root_limit=700 * MIB, root_usage=100 * MIB)
    assert available_memory(root) == 600 * MIB


def test_version_1_has_other_files(host):
    root = host(
        cgroup="5:cpu,cpuacct:/docker\n4:memory:/docker\n",
        v1_limit=1000 * MIB,
        v1_usage=400 * MIB,
        v1_stat=f"total_inactive_file {100 * MIB}\n",
    )
    assert available_memory(root) == 700 * MIB


def test_a_full_group_has_nothing(host):
    assert available_memory(host(cgroup="0::/job/step\n", limit=MIB, usage=2 * MIB)) == 0


def test_a_system_without_these_files_states_nothing(tmp_path):
    assert available_memory(tmp_path) is None


def test_this_host_has_memory():
    assert available_memory() > 0
