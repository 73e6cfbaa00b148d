# SPDX-License-Identifier: Apache-2.0
"""IJB-B and IJB-C: verification (1:1) and identification (1:N) of templates.

The embedding of a face is that of its image, or the sum of the embeddings of the image and of the
mirror image.  The embedding may be scaled to length 1, and may be multiplied by the score of the
face detector.  The names of the variants are those of InsightFace: N0 keeps the length and N1
scales it to 1; D1 multiplies by the detector score and D0 does not; F1 adds the embedding of the
mirror image and F0 does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.identification import FPIRS, RANKS, rank_probes, summarize_ranking
from evaluation.protocols.ijb_lists import (
    SUBSETS,
    Faces,
    TemplatePairs,
    read_subjects,
    read_template_pairs,
)
from evaluation.roc import FARS, highest_needed, roc_points
from evaluation.score_statistics import HighestScores
from evaluation.templates import (
    find_templates,
    group_images,
    inverse_norms,
    pool_templates,
    score_pairs,
)
from evaluation.text_lists import ListError


@dataclass(frozen=True)
class Variant:
    """Variant of the embeddings of faces.

    Parameters
    ----------
    unit_length
        Scale each embedding to length 1.
    detector_score
        Multiply each embedding by the score of the face detector.
    flip
        Whether the embedding of the mirror image is added; None if unknown.
    """

    unit_length: bool = False
    detector_score: bool = True
    flip: bool | None = True

    @property
    def name(self) -> str:
        """Name such as N0D1F1; N0D1 if `flip` is None."""
        flip = "" if self.flip is None else f"F{self.flip:d}"
        return f"N{self.unit_length:d}D{self.detector_score:d}{flip}"


def all_variants(flips: Sequence[bool | None]) -> list[Variant]:
    """Return all combinations of `unit_length` and `detector_score` with the given `flips`."""
    return [Variant(*v) for v in product((False, True), (False, True), flips)]


@dataclass(frozen=True)
class IjbLists:
    """Lists of IJB-B or of IJB-C, checked against each other.

    Parameters
    ----------
    faces
        The faces.
    pairs
        The 1:1 pairs; None if 1:1 is not asked for.
    galleries
        Dict from the name of each gallery to the IDs of its templates and of their subjects; empty
        if 1:N is not asked for.
    probes
        IDs of the templates and of the subjects of the probes; None if 1:N is not asked for.
    """

    faces: Faces
    pairs: TemplatePairs | None
    galleries: dict[str, tuple[np.ndarray, np.ndarray]]
    probes: tuple[np.ndarray, np.ndarray] | None


def read_protocol(meta: Path, subset: str, faces: Faces, protocols: Sequence[str]) -> IjbLists:
    """Read the lists of the protocols "1:1" and "1:N"; check that each template has a face.

    Raises
    ------
    ListError, TemplateError
        If a list cannot be read, or a template has no face.
    """
    numbers = np.unique(faces.templates)
    pairs = probes = None
    galleries = {}
    if "1:1" in protocols:
        pairs = read_template_pairs(meta, subset)
        path = meta / f"{subset}_template_pair_label.txt"
        for templates in (pairs.first, pairs.second):
            find_templates(numbers, templates, str(path))
        if pairs.same.all() or not pairs.same.any():
            raise ListError(
                f"{path}: must have pairs with label 0 and with label 1, got one label only; make "
                "the list again"
            )
    if "1:N" in protocols:
        for gallery in SUBSETS[subset][1]:
            path = meta / f"{subset}_1N_gallery_{gallery}.csv"
            galleries[gallery] = read_subjects(path)
            find_templates(numbers, galleries[gallery][0], str(path))
        path = meta / f"{subset}_1N_probe_mixed.csv"
        probes = read_subjects(path)
        find_templates(numbers, probes[0], str(path))
    return IjbLists(faces, pairs, galleries, probes)


def evaluate_variant(
    lists: IjbLists,
    embeddings: np.ndarray,
    variant: Variant,
    *,
    fars: Sequence[float] = FARS,
    fpirs: Sequence[float] = FPIRS,
    ranks: Sequence[int] = RANKS,
) -> dict[str, Any]:
    """Compute the rates of one variant of the embeddings.

    Inputs
    ------
    embeddings (N, E) float32, those of the faces, not normalised; if ``variant.flip`` is true,
    the embeddings of the mirror images are already added.

    Outputs
    -------
    ``verification``, if there are pairs: ``genuine_pairs``, ``impostor_pairs`` and ``roc``, a list
    of dicts with the fields of `evaluation.roc.RocPoint`.  ``identification``, if there are
    galleries: a dict of results of `evaluation.identification.summarize_ranking`.  The keys of this
    dict are the name of each gallery, "mean" for the mean rates over the galleries, and a name such
    as "G1+G2" for the joined gallery.  InsightFace reports ranks in the joined gallery.
    """
    faces = lists.faces
    groups = group_images(faces.templates, faces.media)
    weights = faces.scores if variant.detector_score else None
    if variant.unit_length:
        norms = inverse_norms(embeddings, "faces")
        weights = norms if weights is None else norms * weights
    numbers, templates = groups.numbers, pool_templates(embeddings, groups, weights)
    result: dict[str, Any] = {}
    if lists.pairs is not None:
        result["verification"] = _verify(numbers, templates, lists.pairs, fars)
    if lists.probes is not None:
        result["identification"] = _identify(numbers, templates, lists, ranks, fpirs)
    return result


def _verify(
    numbers: np.ndarray, templates: np.ndarray, pairs: TemplatePairs, fars: Sequence[float]
) -> dict[str, Any]:
    first, second = (find_templates(numbers, t, "pairs") for t in (pairs.first, pairs.second))
    scores = score_pairs(templates, first, second)
    impostors = int(np.count_nonzero(~pairs.same))
    highest = HighestScores(highest_needed(fars, impostors))
    highest.add(scores[~pairs.same])
    points = roc_points(scores[pairs.same], highest.sorted(), impostors, fars)
    return {
        "genuine_pairs": len(scores) - impostors,
        "impostor_pairs": impostors,
        "roc": [asdict(point) for point in points],
    }


def _identify(
    numbers: np.ndarray,
    templates: np.ndarray,
    lists: IjbLists,
    ranks: Sequence[int],
    fpirs: Sequence[float],
) -> dict[str, Any]:
    assert lists.probes is not None
    probe_templates, probe_people = lists.probes
    probes = templates[find_templates(numbers, probe_templates, "probes")]

    def identify(gallery_templates: np.ndarray, gallery_people: np.ndarray) -> dict[str, Any]:
        gallery = templates[find_templates(numbers, gallery_templates, "gallery")]
        ranking = rank_probes(probes, probe_people, gallery, gallery_people)
        return summarize_ranking(ranking, ranks, fpirs)

    results = {name: identify(*listed) for name, listed in lists.galleries.items()}
    rates = [key for key in next(iter(results.values())) if key.startswith(("rank_", "tpir_"))]
    found = {key: [result[key] for result in results.values()] for key in rates}
    mean = {
        key: None if None in values else float(np.mean(values)) for key, values in found.items()
    }
    listed = list(lists.galleries.values())
    joined = identify(
        np.concatenate([templates for templates, _ in listed]),
        np.concatenate([people for _, people in listed]),
    )
    return {**results, "mean": mean, "+".join(lists.galleries): joined}
