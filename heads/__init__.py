# SPDX-License-Identifier: Apache-2.0
"""Heads: Gluon blocks that compute one loss per image from its embedding and label."""

from collections.abc import Mapping
from typing import Any

from heads.a_softmax import ASoftmax
from heads.adacos import AdaCos
from heads.adaface import AdaFace
from heads.angular_triplet import AngularTriplet
from heads.arcface import ArcFace
from heads.center import Center
from heads.circle import Circle
from heads.coco import COCO
from heads.combined import Combined
from heads.contrastive import Contrastive
from heads.cosface import CosFace
from heads.curricularface import CurricularFace
from heads.elasticface import ElasticFace
from heads.fused_centres import fused_class, require_fused
from heads.git import Git
from heads.head import Head
from heads.inter import Inter
from heads.intra import Intra
from heads.l2_softmax import L2Softmax
from heads.lgm import GaussianMixture
from heads.magface import MagFace
from heads.marginal import Marginal
from heads.mps import MPS
from heads.n_pair import NPair
from heads.normface import NormFace
from heads.range import Range
from heads.ring import Ring
from heads.shard_centres import Step
from heads.sharded import Sharding
from heads.softmax import Softmax
from heads.sphereface import SphereFace
from heads.statistics import Reduce, alone
from heads.sub_center_arcface import SubCenterArcFace
from heads.sv_softmax import SVSoftmax
from heads.triplet import Triplet
from ranges import checked_options

__all__ = ["HEADS", "build_head"]

HEADS: dict[str, type[Head]] = {
    "softmax": Softmax,
    "l2_softmax": L2Softmax,
    "normface": NormFace,
    "sphereface": SphereFace,
    "cosface": CosFace,
    "arcface": ArcFace,
    "combined": Combined,
    "adaface": AdaFace,
    "magface": MagFace,
    "elasticface": ElasticFace,
    "a_softmax": ASoftmax,
    "sv_softmax": SVSoftmax,
    "sub_center_arcface": SubCenterArcFace,
    "curricularface": CurricularFace,
    "adacos": AdaCos,
    "circle": Circle,
    "coco": COCO,
    "lgm": GaussianMixture,
    "center": Center,
    "git": Git,
    "ring": Ring,
    "range": Range,
    "marginal": Marginal,
    "intra": Intra,
    "inter": Inter,
    "contrastive": Contrastive,
    "triplet": Triplet,
    "angular_triplet": AngularTriplet,
    "n_pair": NPair,
    "mps": MPS,
}
"""Mapping from the name of a loss to its class.

The keyword-only arguments of a class are the keys of ``head.*`` in a configuration."""


def build_head(
    name: str,
    num_classes: int,
    embedding_size: int,
    reduce: Reduce = alone,
    *,
    fused_update: Mapping[str, float] | None = None,
    sharding: Sharding | None = None,
    **settings: Any,
) -> Head:
    """Build the head for a loss; call `initialize()` on the head before its first use.

    Parameters
    ----------
    name
        Name of the loss, a key of ``HEADS``.
    num_classes
        Number of classes in the training set.
    embedding_size
        Number of dimensions of an embedding.
    reduce
        Function that computes a statistic over the images of all ranks (`heads.statistics.Reduce`).
    fused_update
        ``momentum`` and ``weight_decay`` with which the head updates its own class centres
        (`heads.fused_centres.FusedCentres`). None: a trainer updates the class centres. A head that
        samples classes is an exception: it updates its class centres itself, with plain operators.
    sharding
        Communication, seed and SGD step for a head with ``sharded=True``
        (`heads.sharded.Sharding`).
    settings
        Settings of the loss: the keyword-only arguments of the head's class.

    Raises
    ------
    ValueError
        If the name or a setting is unknown, or if a value is out of its range.
    OperatorError
        If ``fused_update`` is given, but the head does not support a fused update or the process
        uses the plain operators.
    """
    options = checked_options("head", name, HEADS, settings)
    kind: Any = HEADS[name]
    if options.get("sharded"):
        sharding = sharding or Sharding()
        if fused_update is not None:
            require_fused(name, options)
            sharding = sharding._replace(fused=True, step=Step(**fused_update))
        options["sharding"] = sharding
    elif fused_update is not None:
        kind, options["fused_update"] = fused_class(name, kind), fused_update
    return kind(num_classes, embedding_size, reduce=reduce, **options)
