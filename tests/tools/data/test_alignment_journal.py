# SPDX-License-Identifier: Apache-2.0
"""Journal of an alignment: resumption, incomplete lines, other settings, locks."""

from __future__ import annotations

import pytest

from tools.data.alignment_journal import FILE_NAME, AlignmentJournal

SETTINGS = {"size": [112, 112], "points": "mtcnn"}


def test_a_second_journal_continues_the_first(tmp_path):
    journal = AlignmentJournal(tmp_path, SETTINGS)
    journal.add({"path": "a", "status": "aligned"})
    journal.add({"path": "\udcff\n", "status": "no face"})
    journal.close()
    journal = AlignmentJournal(tmp_path, SETTINGS)
    assert list(journal.rows) == ["a", "\udcff\n"]
    journal.add({"path": "a", "status": "small"})
    journal.close()
    journal = AlignmentJournal(tmp_path, SETTINGS)
    assert journal.rows["a"]["status"] == "small"
    journal.close()


def test_a_journal_that_is_cut_at_any_byte_keeps_its_complete_lines(tmp_path):
    journal = AlignmentJournal(tmp_path, SETTINGS)
    for name in "abc":
        journal.add({"path": name})
    journal.close()
    file = tmp_path / FILE_NAME
    data = file.read_bytes()
    for size in range(len(data) + 1):
        file.write_bytes(data[:size])
        journal = AlignmentJournal(tmp_path, SETTINGS)
        assert list(journal.rows) == list("abc")[: max(0, data[:size].count(b"\n") - 1)]
        journal.add({"path": "d"})
        journal.close()
        assert file.read_bytes().endswith(b'{"path": "d"}\n')


def test_other_settings_are_refused_with_the_differences(tmp_path):
    AlignmentJournal(tmp_path, SETTINGS).close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(ValueError) as error:
        AlignmentJournal(tmp_path, {**SETTINGS, "size": [64, 64]})
    assert str(error.value).startswith(
        f"{tmp_path}: holds faces that were aligned with other settings, got size [112, 112] "
        "instead of [64, 64]; "
    )
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_journal_in_use_is_refused(tmp_path):
    journal = AlignmentJournal(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match="another process writes to this folder"):
        AlignmentJournal(tmp_path, SETTINGS)
    journal.close()
    AlignmentJournal(tmp_path, SETTINGS).close()
