# SPDX-License-Identifier: Apache-2.0
"""Heads: embedding and label in, loss per image out."""

import difflib
import inspect
from collections.abc import Callable

from mxnet import gluon

from heads.a_softmax import a_softmax
from heads.adacos import adacos
from heads.batch_distances import marginal, range_loss
from heads.center import center, git
from heads.center_angles import inter, intra
from heads.coco import coco
from heads.column_margins import circle, curricularface, sv_softmax
from heads.constant_margins import arcface, combined, cosface, normface, sphereface
from heads.image_margins import adaface, elasticface, magface
from heads.lgm import lgm
from heads.metric import angular_triplet, contrastive, mps, n_pair, triplet
from heads.ring import ring
from heads.softmax import l2_softmax, softmax
from heads.statistics import Reduce, alone
from heads.sub_centers import sub_center_arcface

__all__ = ["HEADS", "build_head"]

# Name -> builder. The builder's keyword-only arguments are the schema of `head.*` in a config.
HEADS: dict[str, Callable[..., gluon.HybridBlock]] = {
    "softmax": softmax,
    "l2_softmax": l2_softmax,
    "normface": normface,
    "sphereface": sphereface,
    "cosface": cosface,
    "arcface": arcface,
    "combined": combined,
    "adaface": adaface,
    "magface": magface,
    "elasticface": elasticface,
    "a_softmax": a_softmax,
    "sv_softmax": sv_softmax,
    "sub_center_arcface": sub_center_arcface,
    "curricularface": curricularface,
    "adacos": adacos,
    "circle": circle,
    "coco": coco,
    "lgm": lgm,
    "center": center,
    "git": git,
    "ring": ring,
    "range": range_loss,
    "marginal": marginal,
    "intra": intra,
    "inter": inter,
    "contrastive": contrastive,
    "triplet": triplet,
    "angular_triplet": angular_triplet,
    "n_pair": n_pair,
    "mps": mps,
}


def build_head(
    name: str, num_classes: int, embedding_size: int, reduce: Reduce = alone, **kwargs
) -> gluon.HybridBlock:
    """Build a head by name; it still needs `initialize()`.

    Parameters
    ----------
    name
        A key of ``HEADS``.
    num_classes, embedding_size
        Number of classes C, length E of the embedding.
    reduce
        Computes a statistic of the rows of all ranks (`heads.statistics.Reduce`), for heads that
        keep statistics over the batch.
    kwargs
        Keyword arguments of that builder.

    Returns
    -------
    HybridBlock
        Called as ``loss, target_cosine = head(embedding, label, margin_fraction)``, with shapes
        (B,), (B,) from (B, E), (B,), (1,); the last argument may be left out.

    Raises
    ------
    ValueError
        If the name or a keyword is unknown, or the builder refuses a value.
    """
    if name not in HEADS:
        near = difflib.get_close_matches(str(name), HEADS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"head.name: unknown head {name!r}; {hint}known: {', '.join(HEADS)}")
    builder = HEADS[name]
    parameters = inspect.signature(builder).parameters
    known = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in kwargs:
        if key not in known:
            raise ValueError(f"head.{key}: no setting of head {name!r}; known: {', '.join(known)}")
    ranks = {"reduce": reduce} if "reduce" in parameters else {}
    return builder(num_classes, embedding_size, **ranks, **kwargs)
