# SPDX-License-Identifier: Apache-2.0
"""Base class of the losses on pairs and triplets of images, and a check of their batches."""

from typing import Any, NamedTuple

from heads.cross_entropy import normalised
from heads.head import Head
from heads.mining import mean_over, pairs

PAIRED = ("contrastive", "triplet", "angular_triplet", "n_pair", "mps", "range", "marginal")
"""Names of the heads that need several images of the same person in a batch."""


class Batch(NamedTuple):
    """Arrays of a batch of B images with E-dimensional embeddings, for `PairLoss.pair_loss`."""

    embedding: Any
    """Embeddings as the network computes them, not normalised: shape (B, E)."""
    unit: Any
    """Embeddings normalised to L2 norm 1: shape (B, E)."""
    cosine: Any
    """Cosines of all pairs of embeddings: shape (B, B)."""
    margin: Any
    """Margin of the loss, already multiplied by the margin fraction: shape (1, 1)."""
    positive: Any
    negative: Any
    """Masks from `heads.mining.pairs`, shape (B, B) each: ``positive`` marks the pairs of the same
    person, ``negative`` the pairs of two people."""


class PairLoss(Head):
    """Base class of the losses on pairs of images; it has no class centres and no parameters.

    The loss ignores the number of classes and the embedding size. Each rank forms pairs from its
    own batch, which must contain several images of each person: set ``data.images_per_person``.

    Parameters
    ----------
    margin
        Required difference between pairs of the same person and pairs of two people, in the unit of
        the distance or score of the loss.

    Outputs
    -------
    loss : (B,) float32
        Loss with each image as the anchor; 0 if the image belongs to no pair or triplet.
    target_cosine : (B,) float32
        Mean cosine of each image to the other images of the same person, or 0 if the batch has no
        other image of this person. No gradient flows through this mean.
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
        """Return the loss with each of the B images as the anchor, shape (B,)."""
        raise NotImplementedError


def check_batches(name: str, mining: str, groups: bool, bag: int) -> None:
    """Raise an error if the batches do not contain the pairs or triplets that a head needs.

    Parameters
    ----------
    name
        Name of the head.
    mining
        Value of ``head.mining``, or "" if the head has no such setting.
    groups
        Whether ``data.images_per_person`` puts several images of each person into a batch.
    bag
        Number of images in a bag, from which the triplets are selected: ``data.bag``. 0: no bag.

    Raises
    ------
    ValueError
        If the batches contain no pairs for the head, if ``head.mining=blocks`` is set without a
        bag, or if a bag is set without ``head.mining=blocks``.
    """
    if name in PAIRED and not groups:
        raise ValueError(
            f"head.name: {name!r} needs several images of each person in a batch, got "
            "data.images_per_person=0; set data.images_per_person=4, for example, and a "
            "data.batch_size that is a multiple of 4"
        )
    if mining == "blocks" and not bag:
        raise ValueError(
            "head.mining: 'blocks' needs triplets selected from a bag of images, got data.bag=0; "
            "set data.bag to a number of images, for example 7200, or use head.mining=semi_hard"
        )
    if bag and mining != "blocks":
        setting = f" and head.mining={mining}" if mining else ""
        raise ValueError(
            f"data.bag: needs a head with head.mining=blocks, got head.name={name}{setting}; "
            "set head.name=triplet and head.mining=blocks, or data.bag=0"
        )
