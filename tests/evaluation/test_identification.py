# SPDX-License-Identifier: Apache-2.0
"""Identification equals a slow search with loops, also for ties and degenerate galleries."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import identification
from evaluation.identification import UNKNOWN_PERSON, rank_probes, summarize_ranking
from evaluation.row_sources import ArrayRows, RowError
from tests.evaluation.slow_oracles import average_precision, rank


def unit(rng: np.random.Generator, rows: int, size: int = 6) -> np.ndarray:
    values = rng.standard_normal((rows, size))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("max_probes, max_mates", [(4096, 1 << 22), (3, 1 << 22), (4096, 2)])
@pytest.mark.parametrize("distractors", [0, 50])
def test_ranks_and_precisions_are_those_of_a_sorted_list(
    monkeypatch, max_probes, max_mates, distractors
):
    monkeypatch.setattr(identification, "MAX_PROBES", max_probes)
    monkeypatch.setattr(identification, "MAX_MATES", max_mates)
    rng = np.random.default_rng(5)
    probes, gallery, others = unit(rng, 20), unit(rng, 40), unit(rng, distractors)
    probe_people, gallery_people = rng.integers(-1, 12, 20), rng.integers(-1, 9, 40)
    gallery[gallery_people == 3] += unit(rng, 1)  # one person is easy
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    found = rank_probes(
        probes,
        probe_people,
        gallery,
        gallery_people,
        distractors=ArrayRows(others * 7, "others"),
        average_precision=True,
    )
    for index, person in enumerate(probe_people):
        scores = np.concatenate([gallery, others]).astype(float) @ probes[index]
        mate = np.zeros(len(scores), bool)
        mate[:40] = (gallery_people == person) & (person != UNKNOWN_PERSON)
        assert found.other_scores[index] == pytest.approx(scores[~mate].max(), abs=1e-6)
        if not mate.any():
            assert found.ranks[index] == 0 and np.isneginf(found.mate_scores[index])
            continue
        assert found.mate_scores[index] == pytest.approx(scores[mate].max(), abs=1e-6)
        assert found.ranks[index] == rank(scores[mate].max(), scores[~mate])
        expected = average_precision(scores.tolist(), mate.tolist())
        assert found.precisions[index] == pytest.approx(expected)


def test_a_model_that_maps_all_images_to_one_point_finds_nobody():
    same = np.full((10, 4), 0.5, np.float32)
    found = rank_probes(same, np.arange(10), same, np.arange(10), average_precision=True)
    result = summarize_ranking(found, ranks=(1, 9, 10))
    assert (result["rank_1"], result["rank_9"], result["rank_10"]) == (0, 0, 1)
    assert result["mean_average_precision"] == pytest.approx(0.1)


def test_open_set_rates_are_those_of_the_best_threshold():
    rng = np.random.default_rng(2)
    gallery = unit(rng, 30)
    people = np.concatenate([np.arange(30), np.full(20, UNKNOWN_PERSON)])
    probes = np.concatenate([gallery + 0.5 * unit(rng, 30), unit(rng, 20)])
    probes = (probes / np.linalg.norm(probes, axis=1, keepdims=True)).astype(np.float32)
    ranking = rank_probes(probes, people, gallery, np.arange(30))
    found = summarize_ranking(ranking, ranks=(1, 5), fpirs=(0.01, 0.1, 0.5))
    scores = probes.astype(float) @ gallery.T
    best, top = scores[30:].max(axis=1), scores[:30].argmax(axis=1)
    mates = scores[np.arange(30), np.arange(30)]
    assert found["tpir_at_fpir_0.01"] is None  # 20 probes without mate are too few
    for fpir in (0.1, 0.5):
        rates = [
            np.mean((top == np.arange(30)) & (mates > threshold))
            for threshold in best
            if np.mean(best > threshold) <= fpir
        ]
        assert found[f"tpir_at_fpir_{fpir:g}"] == max(rates) > 0
    assert found["rank_1"] == np.mean(top == np.arange(30))
    assert (found["mated_probes"], found["unmated_probes"]) == (30, 20)
    assert "mean_average_precision" not in found


def test_without_mated_probes_there_is_no_rate():
    rng = np.random.default_rng(3)
    ranking = rank_probes(unit(rng, 12), np.full(12, -1), unit(rng, 3), np.arange(3))
    found = summarize_ranking(ranking)
    assert found["rank_1"] is None and found["tpir_at_fpir_0.1"] is None


def test_embeddings_of_two_models_are_refused():
    rng = np.random.default_rng(3)
    with pytest.raises(RowError, match="gallery: row 0: all embeddings must have the same number"):
        rank_probes(unit(rng, 2, 4), np.arange(2), unit(rng, 2, 5), np.arange(2))
