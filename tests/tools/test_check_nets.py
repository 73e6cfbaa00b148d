# SPDX-License-Identifier: Apache-2.0
"""tools/check_nets.py: what it reports, and that a wrong network fails."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from tools.check_nets import main
from tools.net_checks import checks
from tools.net_checks.checks import CheckError, learn, small_options, smallest_side
from tools.net_checks.published import PUBLISHED


def test_counts_within_one_percent_pass(capsys):
    assert main(["mnas025", "--only", "counts"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["mnas025", "counts"]


def test_several_networks_have_a_process_each_and_all_run_if_one_fails(monkeypatch):
    commands = []

    def run(command):
        commands.append(command)
        return subprocess.CompletedProcess(command, len(commands) % 2)

    monkeypatch.setattr(subprocess, "run", run)
    assert main(["m05", "mnas025", "--only", "counts"]) == 1
    assert [command[2:] for command in commands] == [
        ["m05", "--only", "counts"],
        ["mnas025", "--only", "counts"],
    ]


def test_other_counts_fail(monkeypatch, capsys):
    wrong = replace(PUBLISHED["mobilefacenet"], parameters=900_000)
    monkeypatch.setitem(checks.PUBLISHED, "mobilefacenet", wrong)
    assert main(["mobilefacenet", "--only", "counts"]) == 1
    assert "FAILED counts differ by 11.46%" in capsys.readouterr().out


def test_a_loss_that_does_not_fall_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "learn", lambda *arguments: [1.4, 1.3])
    with pytest.raises(CheckError, match=r"the loss ends at 1\.300"):
        checks.check_learning("mobilefacenet", tmp_path)


def test_a_small_network_learns_eight_images():
    losses = learn("iresnet18", {"width": 0.125, "units": [1, 1, 1, 1]}, (16, 16))
    assert losses[-1] < 0.1 < losses[0]


def test_sizes_and_settings_follow_the_network():
    assert small_options("dpn68") == {} and small_options("vit_t") == {"depth": 2}
    assert smallest_side("inception_resnet_v2", (16, 40, 112), {}) == 40


def test_an_unknown_network_is_refused(capsys):
    assert main(["mobilefacenets"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("check_nets: unknown net 'mobilefacenets'; did you mean 'mobilefacenet")
