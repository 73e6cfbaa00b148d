# SPDX-License-Identifier: Apache-2.0
"""Lines of an .idx: the sound ones are read, each other one becomes a finding."""

from __future__ import annotations

import pytest

from pipeline.records.mapped import RecordError
from tools.data.findings import Findings
from tools.data.index_lines import read_sound_lines


def read(tmp_path, text: bytes) -> tuple[dict[int, int], list[str]]:
    (tmp_path / "a.idx").write_bytes(text)
    findings = Findings()
    keys, offsets = read_sound_lines(tmp_path / "a.idx", findings)
    lines = dict(zip(keys.tolist(), offsets.tolist(), strict=True))
    return lines, [finding.text for finding in findings.listed()]


@pytest.mark.parametrize("text", [b"0\t0\n1\t8\n", b"1 8\r\n0 0\r\n\n\n", b"0\t0\n1\t8"])
def test_lines_that_the_loader_reads_are_no_findings(tmp_path, text):
    assert read(tmp_path, text) == ({0: 0, 1: 8}, [])


def test_each_odd_line_is_named_with_its_number(tmp_path):
    text = b"0\t0\n\nx\t1\n1\t8\n1\t12\n2\t-4\n3\t99999999999999999999\n4\t16\n\n\n"
    lines, texts = read(tmp_path, text)
    assert lines == {0: 0, 1: 8, 4: 16}
    assert sorted(texts) == sorted([
        "line 2 is blank",
        "line 3 is not a key, a tab and an offset: 'x\\t1'",
        "line 5 repeats the key 1",
        "line 6 is not a key, a tab and an offset: '2\\t-4'",
        "line 7 is not a key, a tab and an offset: '3\\t99999999999999999999'",
    ])  # fmt: skip


def test_a_file_without_a_sound_line_is_refused(tmp_path):
    with pytest.raises(RecordError, match="is not a key, a tab and an offset"):
        read(tmp_path, b"\0" * 5000)


def test_a_very_long_line_takes_bounded_memory(tmp_path):
    lines, texts = read(tmp_path, b"0\t0\n" + b"z" * 5000 + b"\n1\t8\n")
    assert lines == {0: 0, 1: 8} and len(texts) == 5
    assert all(text.startswith("line 2 ") and len(text) < 150 for text in texts)
