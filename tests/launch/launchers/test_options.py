# SPDX-License-Identifier: Apache-2.0
"""Command line of a launcher, and the plan of a dry run."""

from __future__ import annotations

import pytest

from launch.launchers.options import Host, Parser, UsageError, format_plan


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
