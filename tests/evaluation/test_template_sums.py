# SPDX-License-Identifier: Apache-2.0
"""Sums of embeddings that arrive in batches."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import template_sums
from evaluation.row_sources import ArrayRows
from evaluation.template_sums import TemplateSums, add_rows


def test_the_order_and_the_batches_do_not_matter(monkeypatch):
    monkeypatch.setattr(template_sums, "BLOCK_ROWS", 7)
    rng = np.random.default_rng(0)
    rows, owners = rng.standard_normal((50, 4)).astype(np.float32), rng.integers(-1, 5, 50)
    sums = TemplateSums(5, 4)
    add_rows(sums, ArrayRows(rows, "rows"), owners)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = sums.unit_templates(str)
    for index in range(5):
        total = unit[owners == index].sum(axis=0)
        np.testing.assert_allclose(found[index], total / np.linalg.norm(total), atol=1e-6)
        assert sums.sizes[index] == (owners == index).sum()


def test_frames_that_cancel_are_refused_by_name():
    sums = TemplateSums(1, 2)
    sums.add(np.array([[1, 0], [-1, 0]], np.float32), np.array([0, 0]))
    with pytest.raises(ValueError, match="Ann/1: the sum of the embeddings cannot be normalised"):
        sums.unit_templates(lambda index: "Ann/1")


def test_a_block_without_rows_of_a_template_changes_nothing(monkeypatch):
    monkeypatch.setattr(template_sums, "BLOCK_ROWS", 2)
    sums = TemplateSums(1, 2)
    rows = np.array([[3, 0], [9, 9], [9, 9], [9, 9], [0, 4]], np.float32)
    add_rows(sums, ArrayRows(rows, "rows"), np.array([0, -1, -1, -1, 0]))
    sums.add(rows[:0], np.array([], int))
    assert sums.sums.tolist() == [[1, 1]] and sums.sizes.tolist() == [2]
