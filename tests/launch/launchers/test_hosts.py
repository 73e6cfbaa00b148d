# SPDX-License-Identifier: Apache-2.0
"""The launcher for several hosts: -H, the command of horovodrun, the dry run."""

from __future__ import annotations

import os
import shlex
import subprocess
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
        with pytest.raises(UsageError, match="may contain only letters, digits"):
            hosts.check_folder(Path(folder))


def test_the_command_has_as_many_slots_as_ranks():
    horovodrun, *rest = hosts.build_command([Host("a", 8), Host("b", 2)], ["--cfg", "x.yaml"])
    assert rest == ["--gloo", "-np", "10", "-H", "a:8,b:2", *TRAIN, "--cfg", "x.yaml"]
    assert Path(horovodrun).is_file()


def test_a_dry_run_prints_the_command_and_starts_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(hosts, "supervise", lambda *_: pytest.fail("something was started"))
    monkeypatch.setattr(hosts, "check_configuration", lambda *_: 0)
    monkeypatch.chdir(tmp_path)  # a relative key is in the folder of the user
    (tmp_path / "key").touch()
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


def test_the_path_of_the_key_is_quoted_for_the_shell_of_horovodrun(tmp_path):
    key = tmp_path / "it's; touch x"
    command = hosts.build_command([Host("a", 1)], [], ssh_identity_file=key)
    quoted = command[command.index("--ssh-identity-file") + 1]
    assert shlex.split(f"ssh -i {quoted} host") == ["ssh", "-i", str(key), "host"]


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--ssh-identity-file", "/nowhere/key", "must be a readable file, got '/nowhere/key'"),
        ("--network-interface", "eth0;id", "must be the name of a network interface, such as"),
        ("--ssh-port", "0", "must be a port from 1 to 65535, got '0'"),
    ],
)
def test_invalid_options_of_ssh_are_refused(option, value, problem, capsys):
    assert hosts.main(["-H", "a:1", option, value, "--dry-run"]) == 2
    assert problem in capsys.readouterr().err


def test_a_dry_run_refuses_a_configuration_that_does_not_exist(capsys):
    assert hosts.main(["-H", "a:1", "--dry-run", "--cfg", "nosuch.yaml"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("run_train: --cfg: no such file, got 'nosuch.y")
    assert shown.err.count("\n") == 1


def test_the_paths_of_the_caller_are_absolute(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(hosts, "check_configuration", lambda *_: 0)
    monkeypatch.chdir(tmp_path)
    assert hosts.main(["-H", "a:1", "--dry-run", "--cfg", "x.yaml", "data.records=set"]) == 0
    assert f"data.records={tmp_path}/set" in capsys.readouterr().out


def test_host_keys_stay_checked_on_request(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(hosts, "supervise", lambda *arguments: given.append(arguments[1]) or 0)
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\necho "$@"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    hosts.main(["-H", "a:1"])
    hosts.main(["-H", "a:1", "--ssh-strict-host-keys"])
    horovod = "ssh -o PasswordAuthentication=no -o StrictHostKeyChecking=no a true"
    words = [
        subprocess.run(horovod, shell=True, env=each, capture_output=True, text=True).stdout.split()
        for each in given
    ]
    assert words[0] == horovod.split()[1:]
    assert words[1] == ["-o", "StrictHostKeyChecking=yes", *horovod.split()[1:]]
