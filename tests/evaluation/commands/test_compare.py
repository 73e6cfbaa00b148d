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
    assert status == 0 and len(lines) == 3
    assert lines[0].startswith("one: accuracy ")
    assert "difference +0.00 percentage points, 95 % interval +0.00 to +0.00 (" in lines[0]
    assert "(bootstrap over 18 groups of linked images), cosine threshold " in lines[0]
    assert lines[2].startswith("groups: ") and "NAME.people.txt beside NAME.bin" in lines[2]
    found = json.loads(report.read_text())["comparison"]["two"]
    assert "people" not in found and found["groups"] == 22
    assert found["base_threshold"] == found["threshold"] and -1 <= found["threshold"] <= 1
    assert found["base"] == found["accuracy"] and found["low"] == found["high"] == 0
    arguments = ["compare", "--base", str(tmp_path), "--checkpoint", str(checkpoint)]
    assert command.main([*arguments, "--sets", str(sets)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_people_are_counted_if_a_file_beside_the_set_names_them(sets, checkpoint, tmp_path, capsys):
    names = ["a", "a", "b", "c"] * 6
    (sets / "one.people.txt").write_text("\n".join(names) + "\n")
    report = tmp_path / "report.json"
    arguments = ["compare", "--base", str(checkpoint), "--model", str(checkpoint), "--device=cpu"]
    arguments += ["--sets", str(sets / "one.bin"), "--json", str(report)]
    assert command.main(arguments) == 0
    out = capsys.readouterr().out
    assert "(bootstrap over 3 people), cosine threshold" in out and "groups" not in out
    assert json.loads(report.read_text())["comparison"]["one"]["people"] == 3
    (sets / "one.people.txt").write_text("a\n")
    assert command.main(arguments) == 2
    assert capsys.readouterr().err == (
        f"error: {sets / 'one.people.txt'}: must have two lines per pair, 24 lines for 12 pairs, "
        "got 1 lines; make the file again, or remove the file\n"
    )


def test_without_an_option_no_file_is_written(sets, checkpoint, tmp_path, capsys):
    before = {*tmp_path.rglob("*")}
    arguments = ["compare", "--base", checkpoint, "--model", checkpoint, "--device=cpu"]
    assert command.main([*map(str, arguments), "--sets", str(sets / "one.bin")]) == 0
    assert capsys.readouterr().out.startswith("one: accuracy ")
    assert {*tmp_path.rglob("*")} == before
