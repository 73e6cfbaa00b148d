# SPDX-License-Identifier: Apache-2.0
"""Output and JSON file of the command compare."""

from __future__ import annotations

import json

from evaluation import __main__ as command


def test_comparing_a_network_with_itself_gives_no_difference(sets, checkpoint, tmp_path, capsys):
    report = tmp_path / "report.json"
    status = command.main(
        ["compare", "--base", str(checkpoint), "--checkpoint", str(checkpoint)]
        + ["--sets", str(sets), "--json", str(report), "--device", "cpu"]
    )
    lines = capsys.readouterr().out.splitlines()
    assert status == 0 and len(lines) == 2
    assert lines[0].startswith("one: accuracy ")
    assert "difference +0.00 percentage points, 95 % interval +0.00 to +0.00 (" in lines[0]
    found = json.loads(report.read_text())["comparison"]["two"]
    assert found["base"] == found["accuracy"] and found["low"] == found["high"] == 0
    arguments = ["compare", "--base", str(tmp_path), "--checkpoint", str(checkpoint)]
    assert command.main([*arguments, "--sets", str(sets)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
