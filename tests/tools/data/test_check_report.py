# SPDX-License-Identifier: Apache-2.0
"""Reports of a check: bounded text, and own files only are replaced."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tools.data.check_report import finding_lines, require_folder, summary_lines, write_report
from tools.data.findings import Findings
from tools.data.record_check import CheckedSet


@pytest.fixture
def checked(tmp_path):
    """Return the result of a check with five findings."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.rec").write_bytes(b"rec")
    findings = Findings()
    for key in range(4):
        findings.add("grey", key, "it has no colours")
    findings.add("index", None, "line 3 is blank")
    numbers = np.arange(3, dtype=np.int64)
    return CheckedSet(
        rec=tmp_path / "set" / "a.rec",
        idx=tmp_path / "set" / "a.idx",
        findings=findings,
        notices=["a fact"],
        images=4,
        image_size=(48, 40),
        num_classes=2,
        keys=numbers,
        offsets=8 * numbers,
        clean_images=3,
    )


def test_each_kind_prints_a_bounded_number_of_lines(checked):
    assert [*finding_lines(checked, 2)] == [
        "index: line 3 is blank",
        "grey: key 0: it has no colours",
        "grey: key 1: it has no colours",
        "grey: 2 more",
    ]
    assert len([*finding_lines(checked, 4)]) == 5
    lines = summary_lines(checked)
    assert lines[0].endswith("a.rec: 4 images of 48x40 pixels") and lines[1] == "notice: a fact"


def test_the_files_of_a_report_are_replaced_and_no_others(checked, tmp_path):
    out = tmp_path / "out"
    require_folder(out, tmp_path / "set")
    (tmp_path / "set" / "identities.json").write_text('["Ada", "Bo"]')
    write_report(out, checked)
    assert (out / "identities.json").read_text() == '["Ada", "Bo"]'
    assert (out / "a.idx").read_text() == "0\t0\n1\t8\n2\t16\n"
    assert (out / "property").read_text() == "2,48,40\n"
    assert json.loads((out / "report.json").read_text())["counts"]["grey"] == 4
    require_folder(out, tmp_path / "set")
    (out / "a.rec").unlink()
    (out / "a.rec").write_bytes(b"a copy of the user")
    with pytest.raises(ValueError, match=r"got a folder with a\.rec"):
        require_folder(out, tmp_path / "set")
    assert (tmp_path / "set" / "a.rec").read_bytes() == b"rec"


def test_a_folder_in_the_set_or_with_other_files_is_refused(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.json").write_text('{"program": "another"}')
    for out in (tmp_path / "set", tmp_path / "set" / "report", tmp_path / "other"):
        with pytest.raises(ValueError, match="; choose another"):
            require_folder(Path(out), tmp_path / "set")
