# SPDX-License-Identifier: Apache-2.0
"""Losses on the pairs and triplets of a batch: contrastive, triplet, N-pair, max-margin pairs.

There is no class matrix and nothing to learn here.  Pairs are those of the rank's own batch, which
must show people more than once: `data.images_per_person`.
"""

import math

import mxnet as mx
from mxnet import gluon

from heads.checks import check_number
from heads.cross_entropy import LENGTH_EPSILON
from heads.margins import COSINE_LIMIT
from heads.mining import hardest, mean_over, only, pairs, semi_hard

MINING = ("semi_hard", "hard", "blocks")
PAIRED = ("contrastive", "triplet", "angular_triplet", "n_pair", "mps", "range", "marginal")
"""Heads that compare images of one person."""
NOWHERE = -1e30  # its exponential is 0


class PairLoss(gluon.HybridBlock):
    """A loss on the pairs of a batch; no parameters.

    Parameters
    ----------
    margin
        Between what should be near and what should be far; its unit is the loss's.

    Inputs
    ------
    embedding : (B, E) float32
        Of any length; normalised here but for N-pair.
    label : (B,) float32 or int32
        Person of each image.
    margin_fraction : (1,) float32, optional
        Share of the margin, 1 by default.

    Outputs
    -------
    loss : (B,) float32
        Of each image as anchor; 0 for one that makes no pair or triplet.
    target_cosine : (B,) float32
        Mean cosine to the other images of the person, 0 where there are none; no gradient flows
        through it.
    """

    def __init__(self, margin: float = 0.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self._margin = margin

    def forward(self, embedding, label, margin_fraction=None):
        if margin_fraction is None:
            margin_fraction = mx.nd.ones((1,), ctx=embedding.context, dtype=embedding.dtype)
        return super().forward(embedding, label, margin_fraction)

    def hybrid_forward(self, F, embedding, label, margin_fraction):
        positive, negative = pairs(F, label)
        unit = F.L2Normalization(embedding, mode="instance", eps=LENGTH_EPSILON)
        cosine = F.dot(unit, unit, transpose_b=True)  # (B, B)
        margin = F.reshape(margin_fraction * self._margin, shape=(1, 1))
        loss = self._loss(F, embedding, unit, cosine, margin, positive, negative)
        return loss, F.BlockGrad(mean_over(F, cosine, positive))

    def _loss(self, F, embedding, unit, cosine, margin, positive, negative):
        raise NotImplementedError


class Contrastive(PairLoss):
    """Pull images of one person together, push others apart up to a margin.

    See `contrastive`, which builds it.
    """

    def _loss(self, F, embedding, unit, cosine, margin, positive, negative):
        squared = _squared_distance(F, unit, cosine)
        distance = F.sqrt(squared + LENGTH_EPSILON)
        apart = F.square(F.relu(F.broadcast_sub(margin, distance)))
        return mean_over(F, 0.5 * (squared * positive + apart * negative), positive + negative)


class Triplet(PairLoss):
    """Ask for a negative to be farther than a positive by a margin.

    See `triplet` and `angular_triplet`, which build it.

    Parameters
    ----------
    mining
        Which triplets: one of MINING.
    angular
        Whether distances are angles; else squared Euclidean ones.
    """

    def __init__(self, margin: float, mining: str, angular: bool, **kwargs) -> None:
        super().__init__(margin, **kwargs)
        self._mining, self._angular = mining, angular

    def forward(self, embedding, label, margin_fraction=None):
        if self._mining == "blocks" and isinstance(embedding, mx.nd.NDArray):
            if len(embedding) % 3:
                raise ValueError(
                    "head.mining: 'blocks' takes anchors, positives and negatives of one number, "
                    f"got a batch of {len(embedding)}; use a multiple of 3"
                )
        return super().forward(embedding, label, margin_fraction)

    def _loss(self, F, embedding, unit, cosine, margin, positive, negative):
        if self._mining == "blocks":
            return self._of_blocks(F, unit, F.reshape(margin, shape=(1,)))
        distance = self._angle(F, cosine) if self._angular else _squared_distance(F, unit, cosine)
        has_both = F.minimum(F.max(positive, axis=1), F.max(negative, axis=1))  # (B,)
        if self._mining == "hard":
            near, far = hardest(F, distance, positive, negative)
            return F.relu(F.broadcast_add(near - far, F.reshape(margin, shape=(1,)))) * has_both
        beyond = semi_hard(F, distance, positive, negative)
        return mean_over(F, F.relu(F.broadcast_add(distance - beyond, margin)), positive) * has_both

    def _of_blocks(self, F, unit, margin):
        anchor, near, far = F.split(unit, num_outputs=3, axis=0)  # (B / 3, E) each
        if self._angular:
            near, far = (self._angle(F, F.sum(anchor * x, axis=1)) for x in (near, far))
        else:
            near, far = (F.sum(F.square(anchor - x), axis=1) for x in (near, far))
        loss = F.relu(F.broadcast_add(near - far, margin))
        # Three times: the mean over the batch is then the mean over the triplets.
        return F.concat(3.0 * loss, F.zeros_like(loss), F.zeros_like(loss), dim=0)

    def _angle(self, F, cosine):
        return F.arccos(F.clip(cosine, -COSINE_LIMIT, COSINE_LIMIT))


class NPair(PairLoss):
    """Softmax of one positive against all negatives of the batch, on inner products.

    See `n_pair`, which builds it.

    Parameters
    ----------
    length_weight
        Of the pull on the squared length of the embeddings.
    """

    def __init__(self, length_weight: float, **kwargs) -> None:
        super().__init__(**kwargs)
        self._length_weight = length_weight

    def _loss(self, F, embedding, unit, cosine, margin, positive, negative):
        product = F.dot(embedding, embedding, transpose_b=True)
        others = only(F, product, negative, NOWHERE)
        top = F.BlockGrad(F.max(others, axis=1, keepdims=True))
        rest = F.log(F.sum(F.exp(F.broadcast_sub(others, top)), axis=1, keepdims=True)) + top
        loss = F.Activation(F.broadcast_sub(rest, product), act_type="softrelu")
        length = self._length_weight * F.sum(F.square(embedding), axis=1)
        return mean_over(F, loss, positive) + length * F.max(positive, axis=1)


class MaxMarginPairs(PairLoss):
    """Ask a pair to be nearer than the nearest image of anybody else to either, by a margin.

    See `mps`, which builds it.
    """

    def _loss(self, F, embedding, unit, cosine, margin, positive, negative):
        nearest = F.argmax(only(F, F.BlockGrad(cosine), negative, -2.0), axis=1)
        rival = F.expand_dims(F.pick(cosine, nearest, axis=1), axis=1)  # (B, 1)
        rival = F.broadcast_maximum(rival, F.transpose(rival))  # of either image of a pair
        short = F.relu(F.broadcast_add(rival - cosine, margin))
        return mean_over(F, short, positive) * F.max(negative, axis=1)


def _squared_distance(F, unit, cosine):
    """Return |x_i - x_j|^2, (B, B), from the products; rounding would go below 0."""
    squares = F.sum(F.square(unit), axis=1, keepdims=True)  # 0 for an embedding of zeros
    total = F.broadcast_add(squares, F.transpose(squares))
    return F.relu(total - 2.0 * cosine)


def contrastive(num_classes: int, embedding_size: int, *, margin: float = 1.0) -> Contrastive:
    """Build a loss that pulls pairs of one person together and pushes others apart.

    For image i the mean over all others j of d^2 / 2 for the same person, else
    max(0, margin - d)^2 / 2, where d = |x_i - x_j| of the normalised embeddings, 0 to 2.

    Parameters
    ----------
    num_classes, embedding_size
        Not used; heads are built alike.
    margin
        Distance up to which other people are pushed apart, above 0 and at most 2.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006,
    equation 4, on normalised embeddings.
    """
    return Contrastive(
        check_number("head.margin", margin, 0, 2, open_low=True, advice="1 is usual")
    )


def triplet(
    num_classes: int, embedding_size: int, *, margin: float = 0.3, mining: str = "semi_hard"
) -> Triplet:
    """Build a loss on triplets of anchor a, positive p and negative n.

    max(0, d(a, p) - d(a, n) + margin), where d = |x - y|^2 of the normalised embeddings, 0 to 4.
    The loss of an image is the mean over the triplets whose anchor it is, 0 if there are none.

    Parameters
    ----------
    num_classes, embedding_size
        Not used; heads are built alike.
    margin
        By how much a negative is to be farther, above 0 and at most 4.
    mining
        Which triplets of the batch. semi_hard: each anchor with each of its positives and the
        nearest negative beyond that (the farthest negative, if none lies beyond); hard: each
        anchor with its farthest positive and its nearest negative; blocks: the batch is anchors,
        positives and negatives, a third each.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Schroff et al., "FaceNet", arXiv:1503.03832, equation 3 and section 3.2; "hard" after Hermans
    et al., "In Defense of the Triplet Loss", arXiv:1703.07737, equation 5.
    """
    margin = check_number("head.margin", margin, 0, 4, open_low=True, advice="0.3 is usual")
    return Triplet(margin, _check_mining(mining), angular=False)


def angular_triplet(
    num_classes: int, embedding_size: int, *, margin: float = 0.35, mining: str = "semi_hard"
) -> Triplet:
    """Build a loss on triplets by the angles between their embeddings.

    As `triplet` with d = arccos(x . y) in radians, of the normalised embeddings. The slope is 0
    within 5e-4 of 0 and pi.

    Parameters
    ----------
    num_classes, embedding_size
        Not used; heads are built alike.
    margin
        By how much a negative is to be farther in radians, above 0 and at most pi.
    mining
        See `triplet`.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Schroff et al., "FaceNet", arXiv:1503.03832, equation 3, with the angle as Deng et al.,
    "ArcFace", arXiv:1801.07698, have it in their triplet loss.
    """
    margin = check_number(
        "head.margin",
        margin,
        *(0, math.pi),
        open_low=True,
        advice="it is in radians, 0.35 is usual",
    )
    return Triplet(margin, _check_mining(mining), angular=True)


def n_pair(num_classes: int, embedding_size: int, *, length_weight: float = 0.002) -> NPair:
    """Build a loss that picks each positive out of all negatives of the batch.

    For anchor i with positives the mean over these, p, of log(1 + sum over the images n of other
    people of exp(x_i . x_n - x_i . x_p)), plus length_weight |x_i|^2.  Embeddings are taken as
    they are.

    Parameters
    ----------
    num_classes, embedding_size
        Not used; heads are built alike.
    length_weight
        Of the squared length of the embedding, from 0. Other code multiplies its usual 0.002 by
        0.25, for anchor and positive each: that is 0.001 here.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NIPS 2016,
    equation 6 and section 3.2.2, over all images of the batch in the place of one pair each.
    """
    return NPair(
        check_number("head.length_weight", length_weight, 0, math.inf, advice="0.002 is usual")
    )


def mps(num_classes: int, embedding_size: int, *, margin: float = 0.5) -> MaxMarginPairs:
    """Build a loss on each positive pair and the image of anybody else that is nearest to it.

    For anchor i the mean over its positives p of max(0, c - cos(i, p) + margin), where c is the
    largest of cos(i, n) and cos(p, n) over the images n of other people; 0 without positives or
    without other people.

    Parameters
    ----------
    num_classes, embedding_size
        Not used; heads are built alike.
    margin
        By how much the cosine of a positive is to be larger, above 0 and at most 2.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Shi and Jain, "DocFace", arXiv:1805.02283, equation 1 (max-margin pairwise score), with
    everybody's images in the place of one pair of each person.
    """
    return MaxMarginPairs(
        check_number("head.margin", margin, 0, 2, open_low=True, advice="0.5 is usual")
    )


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


def _check_mining(mining: str) -> str:
    if mining in MINING:
        return mining
    raise ValueError(f"head.mining: must be one of {', '.join(MINING)}, got {mining!r}")
