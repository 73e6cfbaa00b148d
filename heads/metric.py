# SPDX-License-Identifier: Apache-2.0
"""What the losses on pairs and triplets of a batch share.

There is no class matrix and nothing to learn.  Pairs are those of the rank's own batch, which must
show people more than once: `data.images_per_person`.
"""

from heads.cross_entropy import normalised
from heads.head import Head
from heads.mining import mean_over, pairs

PAIRED = ("contrastive", "triplet", "angular_triplet", "n_pair", "mps", "range", "marginal")
"""Heads that compare images of one person."""


class PairLoss(Head):
    """Loss on the pairs of a batch, without parameters; number of classes and size are not used.

    Parameters
    ----------
    margin
        Distance between what should be near and what should be far, in the loss's unit.

    Outputs
    -------
    loss : (B,) float32
        Of each image as anchor; 0 for one that makes no pair or triplet.
    target_cosine : (B,) float32
        Mean cosine to the other images of the person, 0 where there are none; no gradient flows
        through it.
    """

    def __init__(
        self, num_classes: int, embedding_size: int, *, margin: float = 0.0, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self._margin = margin

    def hybrid_forward(self, F, embedding, label, margin_fraction):
        positive, negative = pairs(F, label)
        unit = normalised(F, embedding)
        cosine = F.dot(unit, unit, transpose_b=True)  # (B, B)
        margin = F.reshape(margin_fraction * self._margin, shape=(1, 1))
        batch = {"embedding": embedding, "unit": unit, "cosine": cosine}
        loss = self.pair_loss(F, margin=margin, positive=positive, negative=negative, **batch)
        return loss, F.BlockGrad(mean_over(F, cosine, positive))

    def pair_loss(self, F, *, embedding, unit, cosine, margin, positive, negative):
        """Return the loss of each image as anchor, (B,).

        Inputs
        ------
        embedding, unit : (B, E) each
            As they are, and normalised.
        cosine, positive, negative : (B, B) each
            See `heads.mining.pairs`.
        margin : (1, 1)
        """
        raise NotImplementedError


def check_batches(name: str, mining: str, groups: bool, bag: int) -> None:
    """Check that the batches hold what a head looks for in them.

    Parameters
    ----------
    name, mining
        Of the head; "" if it has no mining.
    groups
        Whether the batches hold images of one person by design: `data.images_per_person`.
    bag
        Setting of the data.

    Raises
    ------
    ValueError
        If it would find no pair, or triplets are chosen twice or not at all.
    """
    if name in PAIRED and not groups:
        raise ValueError(
            f"head.name: {name!r} compares images of one person, got data.images_per_person=0; set "
            "it to 4, say, with a data.batch_size that it divides"
        )
    if mining == "blocks" and not bag:
        raise ValueError(
            "head.mining: 'blocks' takes triplets chosen from a bag, got data.bag=0; set data.bag "
            "(7200 is usual) or use head.mining=semi_hard"
        )
    if bag and mining != "blocks":
        raise ValueError(
            f"data.bag: chooses the triplets of a head with head.mining=blocks, got {name!r} with "
            f"{mining or 'none'}; use head.name=triplet head.mining=blocks, or data.bag=0"
        )
