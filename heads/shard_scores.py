# SPDX-License-Identifier: Apache-2.0
"""Softmax sums and gradients over the classes of one shard, fused or with plain MXNet operators.

A softmax over the classes of all shards needs the largest logit and the sum of exponentials of all
shards. An object of this module first computes both for the classes of its shard. After the ranks
have exchanged these numbers, the object computes the gradients.

Shapes: G is the number of images of all ranks, n the number of classes of the shard (or of a sample
of them), E the number of dimensions of an embedding, K the number of centres per class.
"""

from typing import Any, NamedTuple, Protocol

import mxnet as mx
from mxnet import autograd

import ops
from heads.cross_entropy import Form, length, normalised, own_scores, reweighed, scores_of

NO_LOGIT = -1e30
"""Value that stands for the largest logit of a shard without classes; its exponential is 0."""


class Targets(NamedTuple):
    """True class of each image as seen by one shard, and the changes to the scores."""

    label: mx.nd.NDArray
    """Class of each image, counted from the first class of the shard; -1 for a class of another
    shard. Shape (G,)."""
    row: mx.nd.NDArray
    """Row of the true class's nearest centre among the centres of the shard, shape (G,); -1 where
    the label is -1."""
    score: mx.nd.NDArray
    """Score of the true class before the margin, shape (G,); 0 where the label is -1."""
    psi: mx.nd.NDArray
    """Score of the true class after the margin, shape (G,); not used where the label is -1."""
    slope: mx.nd.NDArray
    """Slope of psi with respect to the score, shape (G,)."""
    columns: tuple[mx.nd.NDArray, mx.nd.NDArray] | None = None
    """Threshold (G,) and numbers (6,) as the parameter ``columns`` of
    `heads.cross_entropy.cross_entropy` returns them, or None."""


class ShardScores(Protocol):
    """Largest logit and sum of exponentials of a shard; gradients of the softmax of all shards."""

    maximum: mx.nd.NDArray
    """Largest logit of each image among the classes of this shard, shape (G,)."""
    total: mx.nd.NDArray
    """Sum of exp(logit - maximum) over the classes of this shard, shape (G,)."""

    def finish(self, maximum: mx.nd.NDArray, total: mx.nd.NDArray) -> mx.nd.NDArray:
        """Return this shard's part of the gradients of the losses of all images, (G, E).

        Each row is the gradient of an image's loss with respect to the embedding of that image.

        Parameters
        ----------
        maximum, total
            Largest logit and sum of exp(logit - maximum) over the classes of all shards, (G,).
        """

    def centre_gradient(self, out: mx.nd.NDArray) -> None:
        """Write the gradient of the sum of all losses to ``out``, (n K, E).

        The gradient is taken with respect to the class centres. Call `finish` first.
        """


def shard_scores(
    rows: mx.nd.NDArray, centres: mx.nd.NDArray, targets: Targets, form: Form
) -> ShardScores:
    """Compute the largest logit and the sum of exponentials of a shard.

    Parameters
    ----------
    rows
        Embeddings of all ranks, (G, E).
    centres
        Class centres of the shard, (n K, E).
    targets
        True classes, scores after the margin, and changes to the other scores.
    form
        Options of the scores.
    """
    simple = form._replace(scale=1.0) == Form() and targets.columns is None
    fused = ops.fused() if simple else ops.fused_scores()
    kind = FusedShardScores if fused else PlainShardScores
    return kind(rows, centres, targets, form)


def target_scores(
    rows: mx.nd.NDArray, centres: mx.nd.NDArray, label: mx.nd.NDArray, form: Form
) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
    """Return the score of each image's true class, and the row of that class's nearest centre.

    Shapes are (G,). Where the label is -1, the score is 0 and the row is -1.
    """
    F, here = mx.nd, label >= 0
    left = normalised(F, rows) if form.unit_rows else rows
    scores = [
        own_scores(F, left, centres, label * form.group + place, form)
        for place in range(form.group)
    ]
    if form.group == 1:
        return scores[0] * here, label
    several = F.stack(*scores, axis=1)  # (G, K)
    row = label * form.group + F.argmax(several, axis=1)
    return F.max(several, axis=1) * here, F.where(here, row, -F.ones_like(row))


class FusedShardScores:
    """Scores of a shard by the fused operator, which never allocates a (G, n) matrix of logits."""

    def __init__(
        self, rows: mx.nd.NDArray, centres: mx.nd.NDArray, targets: Targets, form: Form
    ) -> None:
        self._form, self._targets = form, targets
        self._attributes = form.attributes()
        self._inputs = [rows, centres, targets.row, targets.psi, targets.slope]
        if targets.columns is not None:
            self._inputs += targets.columns
            self._attributes["columns"] = 1
        out = mx.nd.face_margin_softmax(*self._inputs, **self._attributes)
        _, _, self.maximum, self.total, self._pull, self._share = out

    def finish(self, maximum: mx.nd.NDArray, total: mx.nd.NDArray) -> mx.nd.NDArray:
        # The operator has computed the gradient with the probabilities of a softmax over this
        # shard. The factor turns these into the probabilities of a softmax over all shards. The
        # part of the gradient that attracts an image to its class centre must keep the factor 1.
        factor = self.total * mx.nd.exp(self.maximum - maximum) / total
        self._state = [self._targets.score, maximum, total, self._share]
        attraction = mx.nd.expand_dims(1.0 - factor, axis=1) * self._attraction()
        return mx.nd.expand_dims(factor, axis=1) * self._pull - attraction

    def _attraction(self) -> mx.nd.NDArray:
        """Return scale * slope * g, (G, E).

        Row i of g is the gradient of the score of image i's true class with respect to embedding i.
        """
        F, form = mx.nd, self._form
        rows, centres, row = self._inputs[:3]
        centre = F.take(centres, row, mode="clip")
        centre = normalised(F, centre) if form.unit_columns else centre
        if form.unit_rows:
            unit, norm = normalised(F, rows), F.expand_dims(length(F, rows), axis=1)
            centre = (centre - F.expand_dims(self._targets.score, axis=1) * unit) / norm
        weight = form.scale * self._targets.slope * (self._targets.label >= 0)
        return F.expand_dims(weight, axis=1) * centre

    def centre_gradient(self, out: mx.nd.NDArray) -> None:
        ones = mx.nd.ones_like(self._targets.score)
        mx.nd.face_margin_softmax_centres(
            *self._inputs, *self._state, ones, **self._attributes, out=out
        )

    def update(
        self, velocity: mx.nd.NDArray, lr: mx.nd.NDArray, momentum: float, weight_decay: float
    ) -> None:
        """Update the class centres in place by SGD on the mean loss, without a gradient array.

        Parameters
        ----------
        velocity
            Momentum of the class centres, (n, E), changed in place.
        lr
            Learning rate, (1,).
        momentum, weight_decay
            Factors of SGD, as in `heads.fused_centres.FusedCentres`.
        """
        mx.nd.face_margin_softmax_update(
            *self._inputs,
            *self._state,
            velocity,
            lr,
            scale=self._form.scale,
            momentum=momentum,
            weight_decay=weight_decay,
        )


class PlainShardScores:
    """Scores of a shard by plain MXNet operators, which allocate (G, n) matrices."""

    def __init__(
        self, rows: mx.nd.NDArray, centres: mx.nd.NDArray, targets: Targets, form: Form
    ) -> None:
        F = mx.nd
        # `autograd.grad` clears the graph nodes of its inputs, also those in other recorded graphs.
        # Record only arrays that no other graph uses.
        left, right = rows.detach(), centres.detach()
        psi, slope = targets.psi.detach(), targets.slope.detach()
        left.attach_grad()
        right.attach_grad()
        self._leaves = [left, right]
        count = centres.shape[0] // form.group
        # (G, n); the row of an image with label -1 is 0.
        self._true = F.one_hot(targets.label, depth=count, dtype=rows.dtype)
        with autograd.record():
            scores = scores_of(F, left, right, count, form, None)
            true_score = F.sum(scores * self._true, axis=1)
            if targets.columns is not None:
                scores = reweighed(F, scores, *(array.detach() for array in targets.columns))
            # true_score - F.BlockGrad(true_score) is 0: the second term adds a gradient to psi and
            # leaves the value of psi unchanged.
            psi = psi + slope * (true_score - F.BlockGrad(true_score))
            psi = F.broadcast_mul(F.expand_dims(psi, axis=1), self._true)
            self._logits = (scores * (1.0 - self._true) + psi) * form.scale
        self.maximum = F.max(self._logits.detach(), axis=1)
        self.total = F.sum(self._exponentials(self.maximum), axis=1)

    def _exponentials(self, maximum: mx.nd.NDArray) -> mx.nd.NDArray:
        difference = mx.nd.broadcast_sub(self._logits.detach(), mx.nd.expand_dims(maximum, axis=1))
        return mx.nd.exp(difference)

    def finish(self, maximum: mx.nd.NDArray, total: mx.nd.NDArray) -> mx.nd.NDArray:
        probabilities = mx.nd.broadcast_div(
            self._exponentials(maximum), mx.nd.expand_dims(total, axis=1)
        )
        pull, self._gradient = autograd.grad(
            [self._logits], self._leaves, [probabilities - self._true]
        )
        return pull

    def centre_gradient(self, out: mx.nd.NDArray) -> None:
        self._gradient.copyto(out)


class NoScores:
    """Scores of a shard that holds no classes, because there are fewer classes than ranks."""

    def __init__(self, rows: mx.nd.NDArray) -> None:
        self._rows = rows
        self.total = mx.nd.zeros(rows.shape[:1], rows.context, rows.dtype)
        self.maximum = self.total + NO_LOGIT

    def finish(self, maximum: mx.nd.NDArray, total: mx.nd.NDArray) -> mx.nd.NDArray:
        return mx.nd.zeros_like(self._rows)

    def centre_gradient(self, out: mx.nd.NDArray) -> None:
        out[:] = 0.0

    def update(self, *arguments: Any) -> None:
        """Update nothing: the shard holds no class centres."""
