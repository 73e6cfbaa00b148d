# SPDX-License-Identifier: Apache-2.0
"""The launcher for several hosts: -H, the command of horovodrun, the dry run."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from launch.launchers import hosts
from launch.launchers.options import Host, UsageError

ROOT = Path(__file__).resolve().parents[3]
TRAIN = [sys.executable, str(ROOT / "run_train.py")]


def test_hosts_keep_their_order():
    assert hosts.parse_hosts("b:2,a.x-1:10, 10.0.0.3:1") == [
        Host("b", 2),
        Host("a.x-1", 10),
        Host("10.0.0.3", 1),
    ]


@pytest.mark.parametrize(
    "text", ["", "a", "a:", ":2", "a:0", "a:-1", "a:x", "a:2,", "a b:2", "a:2:3", "-oX:2", "ä:1"]
)
def test_a_malformed_host_is_refused(text):
    with pytest.raises(UsageError, match="^launch.hosts: -H requires a host and its number of"):
        hosts.parse_hosts(text)


def test_a_duplicate_host_is_refused():
    with pytest.raises(UsageError) as error:
        hosts.parse_hosts("a:2,b:1,a:4")
    assert str(error.value) == (
        "launch.hosts: -H contains a duplicate host, got 'a' in 'a:2,b:1,a:4'; "
        "write a:N once, with all its ranks"
    )


@pytest.mark.parametrize(
    ("ranks", "used"),
    [
        (None, [("a", 4), ("b", 4)]),
        (8, [("a", 4), ("b", 4)]),
        (6, [("a", 4), ("b", 2)]),
        (4, [("a", 4)]),
        (1, [("a", 1)]),
    ],
)
def test_the_first_hosts_are_filled_first(ranks, used):
    given = [Host("a", 4), Host("b", 4)]
    assert hosts.limit_ranks(given, ranks) == [Host(*entry) for entry in used]


@pytest.mark.parametrize("ranks", [0, -1, 9])
def test_more_ranks_than_slots_are_refused(ranks):
    with pytest.raises(UsageError, match=f"from 1 to 8, the sum of -H, got {ranks}; omit -np"):
        hosts.limit_ranks([Host("a", 4), Host("b", 4)], ranks)


def test_a_folder_that_needs_quotes_is_refused():
    hosts.check_folder(Path("/srv/faces-2_x.y/code"))
    for folder in ("/srv/my code", "/srv/it's", "/srv/$x"):
        with pytest.raises(UsageError, match="must not contain spaces or quotes"):
            hosts.check_folder(Path(folder))


def test_the_command_has_as_many_slots_as_ranks():
    horovodrun, *rest = hosts.build_command([Host("a", 8), Host("b", 2)], ["--cfg", "x.yaml"])
    assert rest == ["--gloo", "-np", "10", "-H", "a:8,b:2", *TRAIN, "--cfg", "x.yaml"]
    assert Path(horovodrun).is_file()


def test_a_dry_run_prints_the_command_and_starts_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(hosts, "supervise", lambda *_: pytest.fail("something was started"))
    monkeypatch.chdir(tmp_path)  # a relative key is in the folder of the user
    argv = "-H a:8,b:8 -np 12 --network-interface eth0 --ssh-port 2222 --ssh-identity-file key"
    assert hosts.main([*argv.split(), "--dry-run", "--cfg", "x.yaml", "data.records=/a b"]) == 0
    *plan, command = capsys.readouterr().out.splitlines()
    assert plan[1:4] == ["a     0-7", "b     8-11", "total: 12 ranks on 2 hosts"]
    words = shlex.split(command.removeprefix("command: "))
    assert words[1:] == [
        *("--gloo", "-np", "12", "-H", "a:8,b:4", "--network-interfaces", "eth0"),
        *("--ssh-port", "2222", "--ssh-identity-file", str(tmp_path / "key")),
        *(*TRAIN, "--cfg", "x.yaml", "data.records=/a b"),
    ]


def test_the_launcher_does_not_set_the_threads_of_the_ranks(monkeypatch):
    given = []
    monkeypatch.setattr(hosts, "supervise", lambda *arguments: given.append(arguments[1]) or 0)
    monkeypatch.setattr(os, "environ", {"HOME": "/home/me"})
    hosts.main(["-H", "a:2"])
    os.environ["OMP_NUM_THREADS"] = "3"
    hosts.main(["-H", "a:2"])
    assert given == [
        {"HOME": "/home/me", "PYTHONUNBUFFERED": "1"},
        {"HOME": "/home/me", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "3"},
    ]


@pytest.mark.parametrize("argv", [[], ["-H"], ["-H", "a:0"], ["-H", "a:1", "-np", "2"]])
def test_usage_errors_have_one_message_and_exit_code_2(argv, capsys):
    assert hosts.main([*argv, "--dry-run"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("launch.hosts: ")
    assert shown.err.count("\n") == 1
