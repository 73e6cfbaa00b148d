# SPDX-License-Identifier: Apache-2.0
"""Templates: sums over media as a loop adds them up, scores of pairs, errors by template."""

from __future__ import annotations

import numpy as np
import pytest

import evaluation.templates
from evaluation.row_sources import RowError
from evaluation.templates import (
    TemplateError,
    find_templates,
    group_images,
    inverse_norms,
    pool_templates,
    score_pairs,
)
from tests.evaluation.slow_oracles import template


@pytest.mark.parametrize("spread", [20, 65536, 65537, 1 << 20])
@pytest.mark.parametrize("ordered", [True, False])
def test_images_are_sorted_by_template_then_medium_then_number(ordered, spread):
    rng = np.random.default_rng(spread)
    templates, media = rng.integers(-5, spread - 5, 500), rng.integers(-3, 4, 500)
    templates[:2] = -5, spread - 6
    if ordered:
        templates.sort()
    found = group_images(templates, media)
    np.testing.assert_array_equal(found.order, np.lexsort((media, templates)))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("block", [512, 7])
def test_a_template_is_the_sum_of_the_means_of_its_media(ordered, block, monkeypatch):
    monkeypatch.setattr(evaluation.templates, "BLOCK_TEMPLATES", block)
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((400, 16)).astype(np.float32)
    templates = rng.integers(3, 60, 400) * 10
    templates[:90] = 30  # one template with many images
    media, weights = rng.integers(0, 5, 400), rng.random(400)
    if ordered:
        order = np.argsort(templates, kind="stable")
        embeddings, templates, media = embeddings[order], templates[order], media[order]
    groups = group_images(templates, media)
    found = pool_templates(embeddings, groups, weights)
    numbers = groups.numbers
    assert numbers.tolist() == sorted(set(templates.tolist())) and found.dtype == np.float32
    for number, row in zip(numbers, found, strict=True):
        expected = template(embeddings, templates, media, number, weights)
        np.testing.assert_allclose(row, expected, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 1 << 57])
def test_the_images_of_a_medium_share_one_vote_in_each_template(factor):
    """Numbers of up to 18 digits: their products exceed 64 bits."""
    templates, media = factor * np.array([[2, -1, 2, 2, 3], [7, 7, 8, 7, -3]])
    found = group_images(templates, media)
    assert (found.numbers // factor).tolist() == [-1, 2, 3]
    assert found.order.tolist() == [1, 0, 3, 2, 4] and found.starts.tolist() == [0, 1, 4, 5]
    assert found.shares.tolist() == [1, 0.5, 0.5, 1, 1]


@pytest.mark.parametrize("value, length", [(0, "0.0"), (np.nan, "nan"), (np.inf, "inf")])
def test_a_template_without_direction_is_named(value, length):
    embeddings = np.ones((6, 4), np.float32)
    embeddings[4:] = value
    with pytest.raises(TemplateError) as error:
        pool_templates(embeddings, group_images(np.array([1, 1, 2, 2, 9, 9]), np.arange(6)))
    assert str(error.value) == (
        f"template 9: the sum of the embeddings cannot be normalised, got L2 norm {length}; "
        "compute the embeddings again"
    )


def test_scores_of_pairs_are_cosines():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((20, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = rng.integers(0, 20, (2, 1000))
    expected = [rows[i].astype(float) @ rows[j] for i, j in zip(first, second, strict=True)]
    np.testing.assert_allclose(score_pairs(rows, first, second), expected, atol=1e-6)


def test_a_template_without_images_is_named():
    numbers = np.array([2, 5, 9])
    assert find_templates(numbers, np.array([9, 2]), "pairs").tolist() == [2, 0]
    for missing in (1, 6, 10):
        with pytest.raises(TemplateError, match=f"pairs: every template .*got template {missing} "):
            find_templates(numbers, np.array([2, missing]), "pairs")


def test_unit_norms_are_checked():
    assert inverse_norms(np.full((1, 4), 2, np.float32), "faces").tolist() == [0.25]
    with pytest.raises(
        RowError, match="faces: row 1: the embedding cannot be normalised, got L2 norm"
    ):
        inverse_norms(np.array([[1], [0]], np.float32), "faces")
