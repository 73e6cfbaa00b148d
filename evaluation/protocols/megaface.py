# SPDX-License-Identifier: Apache-2.0
"""MegaFace challenge 1: probes of FaceScrub against up to a million distractors.

Each ordered pair of two images of one person is one search: one image is the probe, the gallery is
the other image and all distractors.  The rank of the pair is 1 plus the number of distractors whose
score with the probe is at least the score of the pair.  A pair of a probe and a distractor is an
impostor pair of the ROC.

Kemelmacher-Shlizerman et al., "The MegaFace Benchmark: 1 Million Faces for Recognition at Scale",
CVPR 2016.  Deng et al., "ArcFace", CVPR 2019, removes mislabelled images with noise lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from typing import Any

import numpy as np

from evaluation.roc import highest_needed, roc_points
from evaluation.row_sources import ArrayRows, RowSource, check_dimensions, select_rows
from evaluation.score_statistics import TIE, HighestScores, TopScores, score_blocks

RANKS = (1, 10)
FARS = (1e-6, 1e-5, 1e-4, 1e-3)
NOISE_RULES = ("replace", "remove")
NOISE_AMPLITUDE = 0.001
"""Largest absolute value of the noise that the rule "replace" adds to each value of a feature."""
MAX_PROBES = 4096
"""Number of probes that are compared with the distractors at once."""
MAX_TAIL_SCORES = 1 << 26
"""Largest number of impostor scores that are kept for the ROC: 256 MiB of float32."""


class MegaFaceError(ValueError):
    """The protocol cannot be computed; the message is one sentence for the user."""


def clean_probes(
    names: Sequence[str], features: np.ndarray, noises: Set[str], rule: str, seed: int = 0
) -> tuple[list[str], np.ndarray]:
    """Replace or remove the mislabelled probes.

    Parameters
    ----------
    names
        Path person/image of each probe.
    features
        Features of unit length, (P, E) float32.
    noises
        File names of mislabelled images.
    rule
        "replace" is the rule of InsightFace's ``remove_noises.py``: the sum of the person's correct
        features, plus uniform noise, replaces a mislabelled feature.  "remove" leaves the image
        out.
    seed
        Seed of the uniform noise.

    Outputs
    -------
    Names of the remaining probes, and their features of unit length.
    """
    noisy = np.array([name.split("/")[-1] in noises for name in names], bool)
    if rule == "remove":
        kept = np.flatnonzero(~noisy)
        return [names[index] for index in kept], features[kept]
    people = np.array([name.split("/")[-2] for name in names])
    features = features.copy()
    generator = np.random.default_rng(seed)
    for index in np.flatnonzero(noisy):
        clean = features[(people == people[index]) & ~noisy]
        if not len(clean):
            raise MegaFaceError(
                f"{names[index]}: the person must have a correct image, got none; use --noise-rule "
                "remove, or correct the noise list"
            )
        noise = generator.uniform(-NOISE_AMPLITUDE, NOISE_AMPLITUDE, features.shape[1])
        feature = clean.sum(axis=0) + noise
        length = np.linalg.norm(feature)
        if not length > 0:
            raise MegaFaceError(
                f"{names[index]}: the sum of the person's correct features must have a length "
                f"above 0, got {length}; use --noise-rule remove"
            )
        features[index] = feature / length
    return list(names), features


def clean_distractors(
    names: Sequence[str], rows: RowSource, noises: Set[str]
) -> tuple[RowSource, np.ndarray]:
    """Leave out the distractors in a noise list.

    Outputs
    -------
    The remaining distractors; and, for each n from 0 to len(names), how many of the first n
    distractors remain, (len(names) + 1,) int.
    """
    kept = np.array([name not in noises for name in names], bool)
    return select_rows(rows, np.flatnonzero(kept)), np.concatenate([[0], np.cumsum(kept)])


def evaluate_megaface(
    names: Sequence[str],
    features: np.ndarray,
    distractors: RowSource,
    sizes: Mapping[int, int],
    *,
    ranks: Sequence[int] = RANKS,
    fars: Sequence[float] = FARS,
) -> dict[str, Any]:
    """Compute the rates of MegaFace.

    Parameters
    ----------
    names
        Path person/image of each probe.
    features
        Features of unit length, (P, E) float32.
    distractors
        Features of the distractors, which are read block by block.
    sizes
        Dict from the size of each set of distractors to n, the number of its distractors that are
        not in the noise list; these are the first n rows of `distractors`.

    Outputs
    -------
    ``people`` and ``probes``, the number of people with several images and that of their images;
    ``pairs`` and ``impostor_pairs``, the numbers of genuine and of impostor pairs; ``sizes``, a
    dict from each size to ``distractors`` (the number n) and ``rank_<k>`` (the rank-k rate); and
    ``roc``, a list of dicts with the fields of `evaluation.roc.RocPoint` for the largest size.
    """
    groups = _group(names)
    if not groups:
        raise MegaFaceError(
            f"probes: at least one person must have two images, got {len(names)} images without "
            "such a person; check the list of probes"
        )
    check_dimensions(ArrayRows(features, "probes"), distractors)
    largest = max(sizes.values())
    if not largest:
        raise MegaFaceError(
            "distractors: at least one must remain, got a noise list that names all of them; "
            "correct the noise list"
        )
    probes = sum(map(len, groups))
    impostors = probes * largest
    tail = HighestScores(_tail_count(fars, impostors))
    hits = {size: np.zeros(len(ranks), np.int64) for size in sizes}
    genuine: list[np.ndarray] = []
    for chosen in _parts(groups):
        part = features[np.concatenate(chosen)]
        tops = _search(part, distractors, sizes, max(ranks), tail)
        start = 0
        for group in chosen:
            rows = slice(start, start + len(group))
            scores = _pair_scores(part[rows])
            genuine.append(scores.ravel())
            for size, top in tops.items():
                hits[size] += _count_hits(scores, top[rows], ranks)
            start += len(group)
    scores = np.concatenate(genuine)
    rates = {
        str(size): {
            "distractors": sizes[size],
            **{f"rank_{k}": float(hits[size][i] / len(scores)) for i, k in enumerate(ranks)},
        }
        for size in sorted(sizes)
    }
    points = roc_points(scores, tail.sorted(), impostors, fars)
    return {
        "people": len(groups),
        "probes": probes,
        "pairs": len(scores),
        "impostor_pairs": impostors,
        "sizes": rates,
        "roc": [asdict(point) for point in points],
    }


def _tail_count(fars: Sequence[float], impostors: int) -> int:
    count = highest_needed(fars, impostors)
    if count > MAX_TAIL_SCORES:
        raise MegaFaceError(
            f"--fars: the highest rate must allow at most {MAX_TAIL_SCORES} false accepts, got "
            f"{max(fars):g} of {impostors} impostor pairs; ask for lower rates"
        )
    return count


def _group(names: Sequence[str]) -> list[np.ndarray]:
    """Return the indices of the probes of each person who has at least two probes."""
    people: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        people.setdefault(name.split("/")[-2], []).append(index)
    return [np.array(found) for found in people.values() if len(found) > 1]


def _parts(groups: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Split the people into parts of at most MAX_PROBES probes; a part has at least one person."""
    parts: list[list[np.ndarray]] = []
    count = 0
    for group in groups:
        if not parts or count + len(group) > MAX_PROBES:
            parts.append([])
            count = 0
        parts[-1].append(group)
        count += len(group)
    return parts


def _search(
    probes: np.ndarray,
    distractors: RowSource,
    sizes: Mapping[int, int],
    count: int,
    tail: HighestScores,
) -> dict[int, np.ndarray]:
    """For each size, return the `count` highest scores of each probe, (P, count).

    The scores are those with the distractors of that size; `sizes` is that of `evaluate_megaface`.
    All scores for the largest size are also added to `tail`.
    """
    top, found = TopScores(len(probes), count), {}
    largest = max(sizes.values())
    used = (
        distractors if largest == len(distractors) else select_rows(distractors, np.arange(largest))
    )
    for size, rows in sizes.items():
        if not rows:
            found[size] = top.scores.copy()
    for start, scores in score_blocks(probes, used, list(sizes.values())):
        top.add(scores)
        tail.add(scores)
        for size, rows in sizes.items():
            if rows == start + scores.shape[1]:
                found[size] = top.scores.copy()
    return found


def _pair_scores(features: np.ndarray) -> np.ndarray:
    """Return the scores of each of n images with the n - 1 others, (n, n - 1)."""
    count = len(features)
    scores = features @ features.T
    return scores[~np.eye(count, dtype=bool)].reshape(count, count - 1)


def _count_hits(scores: np.ndarray, top: np.ndarray, ranks: Sequence[int]) -> np.ndarray:
    """Return, for each k in `ranks`, how many pairs have rank k or better.

    Inputs
    ------
    scores (n, m), the scores of n probes with their m mates; top (n, K), the K highest scores of
    each probe with distractors.
    """
    hits = np.zeros(len(ranks), np.int64)
    for pairs, others in zip(scores, top, strict=True):
        found = 1 + (others[None] >= pairs[:, None] - np.float32(TIE)).sum(axis=1)
        hits += [np.count_nonzero(found <= rank) for rank in ranks]
    return hits
