# SPDX-License-Identifier: Apache-2.0
"""Search, sum templates and score pairs, the work that benchmarks/evaluation_speed.py times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.harness.worker import Work, serve
from evaluation.embedding_files import read_embeddings
from evaluation.identification import rank_probes
from evaluation.protocols.megaface import evaluate_megaface
from evaluation.score_statistics import MAX_BLOCK_ROWS
from evaluation.templates import group_images, pool_templates, score_pairs

IMAGES_PER_PROBE = 20
MEDIA = 5
BARE_PAIRS = 1024
Step = Callable[[], float]


def build(kind: str, **settings: int | str) -> Work:
    """Return the `Work` of one part of the evaluation, or of its upper bound.

    Parameters
    ----------
    kind
        Name of the part, a key of STEPS.
    settings
        Keyword arguments of the function in STEPS.
    """
    step = STEPS[kind](**settings)
    return Work(lambda mark: step(), 0, 0, {"numpy": np.__version__})


def random_rows(count: int, size: int, seed: int) -> np.ndarray:
    """Return random rows of unit length, float32 (count, size)."""
    rows = np.random.default_rng(seed).standard_normal((count, size), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def rank_step(path: str, probes: int, size: int) -> Step:
    """Return a step that computes the rank of each probe's mate.

    The gallery holds one mate per probe.  The file ``path`` holds the distractors.
    """
    rows, people = random_rows(probes, size, 1), np.arange(probes)
    gallery = random_rows(probes, size, 2)
    distractors = read_embeddings(path).rows

    def step() -> float:
        ranking = rank_probes(rows, people, gallery, people, distractors=distractors)
        return float(np.mean(ranking.ranks == 1))

    return step


def megaface_step(path: str, probes: int, size: int) -> Step:
    """Return a step that computes rank-1 and the ROC of MegaFace."""
    rows = random_rows(probes, size, 1)
    names = [f"{probe // IMAGES_PER_PROBE}/{probe}.png" for probe in range(probes)]
    distractors = read_embeddings(path).rows
    count = len(distractors)

    def step() -> float:
        found = evaluate_megaface(names, rows, distractors, {count: count}, ranks=(1,))
        return float(found["sizes"][str(count)]["rank_1"])

    return step


def product_step(count: int, probes: int, size: int) -> Step:
    """Return a step that computes the matrix product of probes and `count` distractors in blocks.

    The step uses the same block of embeddings again and again, so it reads no file, and it ignores
    the products.
    """
    rows, block = random_rows(probes, size, 1), random_rows(min(count, MAX_BLOCK_ROWS), size, 3)
    products = np.empty((probes, len(block)), np.float32)

    def step() -> float:
        for start in range(0, count, len(block)):
            used = block[: min(len(block), count - start)]
            np.matmul(rows, used.T, out=products[:, : len(used)])
        return 0.0

    return step


def template_step(images: int, templates: int, size: int, shuffled: bool) -> Step:
    """Return a step that pools embeddings to templates; each image has a template and a medium."""
    rng = np.random.default_rng(4)
    owners = rng.integers(0, templates, images)
    if not shuffled:
        owners.sort()
    media = rng.integers(0, MEDIA, images)
    embeddings = rng.standard_normal((images, size), dtype=np.float32)

    def step() -> float:
        groups = group_images(owners, media)
        return float(pool_templates(embeddings, groups)[0, 0])

    return step


def reading_step(images: int, size: int) -> Step:
    """Return a step that reads an array once, with one thread."""
    rows = np.random.default_rng(4).standard_normal((images, size), dtype=np.float32)
    return lambda: float(rows.sum())


def pair_step(pairs: int, templates: int, size: int, bare: bool) -> Step:
    """Return a step that scores pairs of templates with `score_pairs`, or with NumPy if `bare`."""
    rng = np.random.default_rng(5)
    rows = random_rows(templates, size, 6)
    first, second = rng.integers(0, templates, (2, pairs))
    if not bare:
        return lambda: float(score_pairs(rows, first, second).mean())

    def step() -> float:
        scores = np.empty(pairs, np.float32)
        for start in range(0, pairs, BARE_PAIRS):
            some = slice(start, start + BARE_PAIRS)
            scores[some] = (rows[first[some]] * rows[second[some]]).sum(axis=1)
        return float(scores.mean())

    return step


STEPS: dict[str, Callable[..., Step]] = {
    "rank": rank_step,
    "megaface": megaface_step,
    "product": product_step,
    "templates": template_step,
    "reading": reading_step,
    "pairs": pair_step,
}
"""Kind of a step -> function that returns the step."""


def warm() -> None:
    """Start the threads of NumPy's matrix product."""
    matrix = np.ones((512, 512), np.float32)
    matrix @ matrix


if __name__ == "__main__":
    serve(build, warm)
