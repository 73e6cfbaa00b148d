# SPDX-License-Identifier: Apache-2.0
"""Options of a launcher among those of run_train.py, and the printed plan."""

from __future__ import annotations

import pytest

from launch.launchers.options import Host, Parser, UsageError, describe


def parser() -> Parser:
    made = Parser("launch.some", "For this test.")
    made.add_argument("-np", "--ranks", type=int)
    made.add_argument("--config-check", action="store_true")
    return made


def test_other_arguments_are_left_in_order():
    options, rest = parser().split(["--cfg", "a.yaml", "-np", "3", "data.x=[1, 2]", "--new"])
    assert options.ranks == 3
    assert rest == ["--cfg", "a.yaml", "data.x=[1, 2]", "--new"]


def test_options_are_not_guessed_from_their_beginnings():
    options, rest = parser().split(["--config", "a.yaml"])
    assert options.config_check is False and rest == ["--config", "a.yaml"]


@pytest.mark.parametrize("argv", [["-np"], ["-np", "two"]])
def test_a_wrong_option_is_one_sentence(argv, capsys):
    with pytest.raises(UsageError) as error:
        parser().split(argv)
    text = str(error.value)
    assert text.startswith("launch.some: argument -np/--ranks: ")
    assert text.endswith("; see python -m launch.some --help") and "\n" not in text
    assert capsys.readouterr() == ("", "")


def test_plan_numbers_the_ranks_and_quotes_the_command():
    hosts = [Host("a", 8), Host("longer", 1)]
    assert describe(hosts, ["run", "x y", "z"], "/code").splitlines() == [
        "host    ranks",
        "a       0-7",
        "longer  8",
        "total: 9 ranks on 2 hosts",
        "folder: /code",
        "command: run 'x y' z",
    ]
    assert "total: 1 rank on 1 host\n" in describe([Host("a", 1)], ["run"], "/code")
