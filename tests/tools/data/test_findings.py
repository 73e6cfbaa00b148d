# SPDX-License-Identifier: Apache-2.0
"""Lists of findings: all are counted, and the texts are bounded."""

from __future__ import annotations

from tools.data import findings


def test_texts_are_bounded_while_counts_and_keys_are_not(monkeypatch):
    monkeypatch.setattr(findings, "MAX_LISTED_FINDINGS", 2)
    found = findings.Findings()
    for key in (5, 3, 4):
        found.add("grey", key, "it has no colours")
    found.add("index", None, "line 2 is blank")
    assert len(found) == 4 and found.counts["grey"] == 3
    assert [(f.kind, f.key) for f in found.listed()] == [("index", None), ("grey", 3), ("grey", 5)]
    assert found.keys(["grey", "index"]).tolist() == [5, 3, 4]
    assert found.keys([]).tolist() == []
