# SPDX-License-Identifier: Apache-2.0
"""Base class of the losses on pairs and triplets, and the check of their batches."""

from typing import Any, NamedTuple

from heads.cross_entropy import normalised
from heads.head import Head
from heads.mining import mean_over, pairs

PAIRED = ("contrastive", "triplet", "angular_triplet", "n_pair", "mps", "range", "marginal")
"""Heads that compare images of one person."""


class Batch(NamedTuple):
    """Arrays that `PairLoss.pair_loss` reads."""

    embedding: Any
    """(B, E), not normalised."""
    unit: Any
    """(B, E), normalised."""
    cosine: Any
    """(B, B), of all pairs."""
    margin: Any
    """(1, 1), times the margin fraction."""
    positive: Any
    negative: Any
    """(B, B) each: `heads.mining.pairs`."""


class PairLoss(Head):
    """Loss on the pairs of a batch, without class centres and parameters.

    It ignores the number of classes and the embedding size. The pairs are those of the rank's own
    batch, which must contain several images of a person: ``data.images_per_person``.

    Parameters
    ----------
    margin
        Required difference between positive and negative pairs, in the unit of the loss's distance.

    Outputs
    -------
    loss : (B,) float32
        Loss with each image as the anchor; 0 if the image is in no pair or triplet.
    target_cosine : (B,) float32
        Mean cosine to the other images of the person, 0 if there are none; no gradient flows
        through it.
    """

    def __init__(
        self, num_classes: int, embedding_size: int, *, margin: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._margin = margin

    def hybrid_forward(
        self, F: Any, embedding: Any, label: Any, margin_fraction: Any
    ) -> tuple[Any, Any]:
        positive, negative = pairs(F, label)
        unit = normalised(F, embedding)
        cosine = F.dot(unit, unit, transpose_b=True)
        margin = F.reshape(margin_fraction * self._margin, shape=(1, 1))
        batch = Batch(embedding, unit, cosine, margin, positive, negative)
        return self.pair_loss(F, batch), F.BlockGrad(mean_over(F, cosine, positive))

    def pair_loss(self, F: Any, batch: Batch) -> Any:
        """Return the loss with each image as the anchor, (B,)."""
        raise NotImplementedError


def check_batches(name: str, mining: str, groups: bool, bag: int) -> None:
    """Check that the batches contain the pairs or triplets that a head needs.

    Parameters
    ----------
    name, mining
        Name and mining of the head; "" if it has no mining.
    groups
        Whether ``data.images_per_person`` puts several images of a person into a batch.
    bag
        Number of images in a bag: ``data.bag``.

    Raises
    ------
    ValueError
        If the head finds no pairs, or if both or neither of head and data select the triplets.
    """
    if name in PAIRED and not groups:
        raise ValueError(
            f"head.name: {name!r} compares images of one person, got data.images_per_person=0; set "
            "it to 4, for example, with a data.batch_size that is a multiple of it"
        )
    if mining == "blocks" and not bag:
        raise ValueError(
            "head.mining: 'blocks' needs triplets selected from a bag, got data.bag=0; set "
            "data.bag (7200 is usual) or use head.mining=semi_hard"
        )
    if bag and mining != "blocks":
        raise ValueError(
            f"data.bag: selects the triplets of a head with head.mining=blocks, got {name!r} with "
            f"{mining or 'none'}; use head.name=triplet head.mining=blocks, or data.bag=0"
        )
