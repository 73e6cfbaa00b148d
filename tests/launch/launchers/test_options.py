# SPDX-License-Identifier: Apache-2.0
"""Command line of a launcher, and the plan of a dry run."""

from __future__ import annotations

import argparse
import sys

import pytest

from launch.launchers.options import (
    Host,
    Parser,
    UsageError,
    check_configuration,
    format_plan,
    interface_name,
    port_number,
    shell_environment,
)


def parser() -> Parser:
    launcher = Parser("launch.some", "Launcher of this test.")
    launcher.add_argument("-np", "--ranks", type=int)
    launcher.add_argument("--config-check", action="store_true")
    return launcher


def test_other_arguments_keep_their_order():
    options, rest = parser().split(["--cfg", "a.yaml", "-np", "3", "data.x=[1, 2]", "--new"])
    assert options.ranks == 3
    assert rest == ["--cfg", "a.yaml", "data.x=[1, 2]", "--new"]


def test_options_cannot_be_abbreviated():
    options, rest = parser().split(["--config", "a.yaml"])
    assert options.config_check is False and rest == ["--config", "a.yaml"]


@pytest.mark.parametrize("argv", [["-np"], ["-np", "two"]])
def test_an_invalid_option_has_one_message(argv, capsys):
    with pytest.raises(UsageError) as error:
        parser().split(argv)
    text = str(error.value)
    assert text.startswith("launch.some: argument -np/--ranks: ")
    assert text.endswith("; see python -m launch.some --help") and "\n" not in text
    assert capsys.readouterr() == ("", "")


def test_the_plan_lists_the_ranks_and_the_command():
    hosts = [Host("a", 8), Host("longer", 1)]
    assert format_plan(hosts, ["run", "x y", "z"], "/code").splitlines() == [
        "host    ranks",
        "a       0-7",
        "longer  8",
        "total: 9 ranks on 2 hosts",
        "folder: /code",
        "command: run 'x y' z",
    ]
    assert "total: 1 rank on 1 host\n" in format_plan([Host("a", 1)], ["run"], "/code")


def test_names_of_variables_that_a_shell_would_execute_are_left_out():
    unsafe = ["A;touch x", "$(touch x)", "A B", "BASH_FUNC_f%%", "1A", "Ä", "A\nB", ""]
    given = {"PATH": "/bin", "_x1": "a b;c", **dict.fromkeys(unsafe, "1")}
    assert shell_environment(given) == {"PATH": "/bin", "_x1": "a b;c"}


def test_the_name_of_a_network_interface_needs_no_quotes():
    for name in ("eth0", "ens3f0np0", "br-1a2b", "eth0.100", "eth0:1", "bond0@if2"):
        assert interface_name(name) == name
    for name in ("", "eth0;reboot", "$(id)", "eth0 eth1", "-x", "a" * 40, "eth0\n"):
        with pytest.raises(argparse.ArgumentTypeError, match="^must be the name of a network inte"):
            interface_name(name)


@pytest.mark.parametrize("text", ["0", "-1", "65536", "x", "1e3", "²", "9" * 5000, ""])
def test_a_port_is_a_number_within_its_range(text):
    assert port_number("2222") == 2222
    with pytest.raises(argparse.ArgumentTypeError, match="^must be a port from 1 to 65535, got "):
        port_number(text)


def test_a_dry_run_prints_the_message_of_run_train(tmp_path, capsys):
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys\n"
        "print('config')\n"
        "print(f'run_train: {sys.argv[1:]} {os.getcwd()}', file=sys.stderr)\n"
        "sys.exit(len(sys.argv) - 2)\n"
    )
    train = [sys.executable, str(script)]
    assert check_configuration(train, [], tmp_path) == 0
    assert capsys.readouterr() == ("", "")
    assert check_configuration(train, ["--cfg", "a b"], tmp_path) == 2
    error = f"run_train: ['--print-config', '--cfg', 'a b'] {tmp_path}\n"
    assert capsys.readouterr() == ("", error)
