# SPDX-License-Identifier: Apache-2.0
"""docs/losses.md against the declarations of the heads."""

from __future__ import annotations

import re

import pytest

from heads import HEADS
from ranges import settings
from tools.losses_table import DOCUMENT, document, row, setting_text


def test_the_tables_are_those_of_the_heads():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert document(text) == text, "run: python -m tools.losses_table --write"


def test_every_head_has_a_row_and_its_measurements():
    named = re.findall(r"^\| `(\w+)` ", DOCUMENT.read_text(encoding="utf-8"), re.M)
    assert {name: named.count(name) >= 2 for name in HEADS} == dict.fromkeys(HEADS, True)


def test_a_row_gives_paper_formula_and_settings():
    assert row("arcface", HEADS["arcface"]) == (
        '| `arcface` | Deng et al., "ArcFace", arXiv:1801.07698, equation 3 | `logits s c_j; true '
        "class: s cos(t + m2), with a guard: s (c - m2 sin m2) where t > pi - m2` | "
        "m2 0.5 [0, 1.5708], easy_margin false, scale 64 (0, ∞) |"
    )
    assert r"`softmax loss + center_weight / 2 \|x - m_y\|^2`" in row("center", HEADS["center"])
    assert row("adacos", HEADS["adacos"]).endswith("| none |")
    mining = settings(HEADS["triplet"])["mining"]
    assert setting_text(mining) == "mining semi_hard (or hard, blocks)"


def test_a_document_without_a_table_is_refused():
    with pytest.raises(ValueError, match="the lines <!-- begin: class centres --> and"):
        document("# Losses\n")
