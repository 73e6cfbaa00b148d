# SPDX-License-Identifier: Apache-2.0
"""Exact identification of probes in a gallery: rank, mean average precision, open-set rates.

The gallery may be followed by distractors, which show people who appear in no probe.  The
scores of all probes with the gallery are computed block by block.

Grother and Ngan, "Face Recognition Vendor Test: Identification", NISTIR 8009, 2014, section 3,
defines the rates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.roc import allowed_false_accepts
from evaluation.row_sources import ArrayRows, RowSource, check_dimensions
from evaluation.score_statistics import CountsAtLeast, TopScores, score_blocks

FPIRS = (0.01, 0.1)
RANKS = (1, 5, 10)
UNKNOWN_PERSON = -1
"""ID that stands for every person who is not in the gallery."""
MAX_PROBES = 4096
"""Number of probes that are compared with the gallery at once."""
MAX_MATES = 1 << 22
"""Largest number of scores between probes and their mates that are in memory at a time.

A mate is a gallery image of the probe's person.  A single probe may have more mates than this.
"""


@dataclass(frozen=True)
class Ranking:
    """Ranks and scores of the mates of P probes; a mate is a gallery image of the probe's person.

    Parameters
    ----------
    ranks
        Rank of the best mate, from 1; 0 for a probe without mate.  An image of a different person
        with the same score ranks before the mate.  (P,) int64.
    mate_scores
        Score of the best mate; -inf for a probe without mate, (P,) float32.
    other_scores
        Highest score with a different person; -inf if there is none, (P,) float32.
    precisions
        Average precision of each probe; NaN for a probe without mate, and for all probes if it was
        not computed, (P,) float64.
    """

    ranks: np.ndarray
    mate_scores: np.ndarray
    other_scores: np.ndarray
    precisions: np.ndarray


def rank_probes(
    probes: np.ndarray,
    probe_people: np.ndarray,
    gallery: np.ndarray,
    gallery_people: np.ndarray,
    *,
    distractors: RowSource | None = None,
    average_precision: bool = False,
) -> Ranking:
    """Compare P probes with a gallery of G images and, if there are any, D distractors.

    Parameters
    ----------
    distractors
        Embeddings of people who appear in no probe; they are read block by block.
    average_precision
        Also compute the average precision of each probe; this takes longer.

    Inputs
    ------
    probes (P, E) and gallery (G, E) float32 of unit length; probe_people (P,) int, the ID of each
    probe's person, or UNKNOWN_PERSON; gallery_people (G,) int, the ID of each gallery image's
    person.
    """
    sources: list[RowSource] = [ArrayRows(gallery, "gallery")]
    if distractors is not None and len(distractors):
        sources.append(distractors)
    check_dimensions(ArrayRows(probes, "probes"), *sources)
    ranks = np.zeros(len(probes), np.int64)
    mate_scores = np.full(len(probes), -np.inf, np.float32)
    other_scores = np.full(len(probes), -np.inf, np.float32)
    precisions = np.full(len(probes), np.nan)
    for chosen, mates in _parts(probe_people, gallery_people):
        part = probes[chosen]
        scores = [gallery[rows] @ probe for rows, probe in zip(mates, part, strict=True)]
        limits = scores if average_precision else [np.sort(found)[-1:] for found in scores]
        counts, best = _compare(part, sources, mates, limits)
        other_scores[chosen] = best
        for probe, found, above in zip(chosen, scores, counts, strict=True):
            if len(found):
                mate_scores[probe] = found.max()
                ranks[probe] = 1 + above.min()
                precisions[probe] = _average_precision(found, above, average_precision)
    return Ranking(ranks, mate_scores, other_scores, precisions)


def _parts(
    probe_people: np.ndarray, gallery_people: np.ndarray
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yield the probes in parts: their indices, and for each probe the gallery rows of its person.

    A part has at most MAX_PROBES probes.  If it has several probes, the numbers of their gallery
    rows add up to at most MAX_MATES.
    """
    order = np.argsort(gallery_people, kind="stable")
    ordered = gallery_people[order]
    first = np.searchsorted(ordered, probe_people, side="left")
    last = np.searchsorted(ordered, probe_people, side="right")
    last = np.where(probe_people == UNKNOWN_PERSON, first, last)
    start = 0
    while start < len(probe_people):
        total = np.cumsum(last[start : start + MAX_PROBES] - first[start : start + MAX_PROBES])
        count = max(1, int(np.searchsorted(total, MAX_MATES, side="right")))
        chosen = np.arange(start, min(start + count, len(probe_people)))
        yield chosen, [np.sort(order[first[probe] : last[probe]]) for probe in chosen]
        start += len(chosen)


def _compare(
    probes: np.ndarray,
    sources: Sequence[RowSource],
    mates: Sequence[np.ndarray],
    limits: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], np.ndarray]:
    """Compare probes with all rows of the sources except their mates.

    ``mates`` has for each probe the indices of its mates in the first source, the gallery.
    ``limits`` has for each probe an array of scores.

    Outputs
    -------
    For each probe an array with a count for each of its ``limits``: how many compared rows have at
    least this score with the probe.  And the highest score of each probe with a compared row, (P,).
    """
    counts, best = CountsAtLeast(limits), TopScores(len(probes), 1)
    rows = np.repeat(np.arange(len(probes)), [len(m) for m in mates])
    columns = np.concatenate(mates) if len(rows) else np.empty(0, np.int64)
    order = np.argsort(columns, kind="stable")
    rows, columns = rows[order], columns[order]
    for index, source in enumerate(sources):
        for start, scores in score_blocks(probes, source):
            if index == 0:
                inside = slice(*np.searchsorted(columns, [start, start + scores.shape[1]]))
                scores[rows[inside], columns[inside] - start] = -np.inf
            counts.add(scores)
            best.add(scores)
    return counts.counts, best.scores[:, 0]


def _average_precision(mates: np.ndarray, above: np.ndarray, wanted: bool) -> float:
    """Return the average precision of a probe: the mean precision at the ranks of its mates.

    Return NaN if the average precision is not ``wanted``.

    Inputs
    ------
    mates (M,), the scores of the mates; above (M,), for each mate, how many images of other people
    score at least as high.
    """
    if not wanted:
        return float("nan")
    above = above[np.argsort(-mates, kind="stable")]
    place = np.arange(1, len(mates) + 1)
    return float(np.mean(place / (place + above)))


def summarize_ranking(
    ranking: Ranking, ranks: Sequence[int] = RANKS, fpirs: Sequence[float] = FPIRS
) -> dict[str, Any]:
    """Return the rates of a ranking.

    Outputs
    -------
    ``mated_probes`` and ``unmated_probes``, the numbers of probes with and without mate;
    ``rank_<k>``, the fraction of mated probes whose best mate has rank k or better, or None without
    mated probes; ``threshold_at_fpir_<x>``, the lowest threshold above which at most the fraction x
    of the unmated probes has a score; ``tpir_at_fpir_<x>``, the true positive identification rate:
    the fraction of mated probes whose best mate has rank 1 and a score above that threshold;
    ``mean_average_precision``, if it was computed.  The threshold and the TPIR are None if there
    are no mated probes, or fewer than ``1 / x`` unmated probes.
    """
    mated = ranking.ranks > 0
    result: dict[str, Any] = {
        "mated_probes": int(mated.sum()),
        "unmated_probes": int((~mated).sum()),
    }
    found = ranking.ranks[mated]
    for rank in ranks:
        result[f"rank_{rank}"] = float(np.mean(found <= rank)) if len(found) else None
    false_scores = np.sort(ranking.other_scores[~mated])[::-1]
    for fpir in fpirs:
        allowed = allowed_false_accepts(fpir, len(false_scores))
        rate = threshold = None
        if allowed >= 1 and len(found):
            threshold = float(false_scores[allowed])
            rate = float(np.mean((found == 1) & (ranking.mate_scores[mated] > threshold)))
        result[f"tpir_at_fpir_{fpir:g}"] = rate
        result[f"threshold_at_fpir_{fpir:g}"] = threshold
    precisions = ranking.precisions[mated]
    if len(precisions) and not np.isnan(precisions).any():
        result["mean_average_precision"] = float(precisions.mean())
    return result
