# SPDX-License-Identifier: Apache-2.0
"""Base class of the heads whose class centres can be distributed over the ranks."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import mxnet as mx
import numpy as np
from mxnet import autograd

from heads.class_sampler import ClassSampler
from heads.cross_entropy import Form, normalised
from heads.head import ClassHead
from heads.prediction import first_largest, largest_score
from heads.shard import Shard
from heads.shard_centres import ShardCentres, Step
from heads.shard_scores import (
    NO_LOGIT,
    NoScores,
    ShardScores,
    Targets,
    shard_scores,
    target_scores,
)
from launch.ranks.comm import Comm
from ranges import Within

Rate = Annotated[float, Within(0, 1, "the usual rate is 0.1 to 0.3", open_low=True)]


class Sharding(NamedTuple):
    """Communication, seed and SGD step of a sharded head."""

    comm: Comm = Comm()
    """Communication of this rank with the other ranks."""
    seed: int = 0
    """Seed of the samples of classes."""
    step: Step = Step()
    """SGD step of the class centres that the head updates itself."""
    fused: bool = False
    """Whether the fused operator updates the class centres, without an array of their gradient."""


class ShardedClasses(ClassHead):
    """Head whose class centres can be distributed over the ranks.

    With ``sharded`` the rank r of R ranks holds the centres of about C / R classes
    (`heads.shard.Shard`). In every step all ranks get the embeddings of all images. Each rank
    computes the logits of its classes for all images. The ranks exchange four numbers per image,
    and sum the gradients of the embeddings over all ranks. The number of bytes that the ranks
    exchange does not depend on C.

    In training, the forward pass already computes the gradients of the class centres: those of the
    sum of the losses of all ranks. The backward pass must therefore start from the losses
    without any factor, as ``loss.backward()`` does.

    Parameters
    ----------
    sharded
        Whether each rank holds the class centres of a part of the classes only. If false, each rank
        holds all class centres.
    sample_rate
        Fraction of the classes of each rank that take part in a step. The classes of the images of
        all ranks always take part; the other classes are a random sample. Only the centres that
        take part are read and updated: the momentum of the others does not change, and weight decay
        does not apply to them in that step. With 1 all classes take part. A rate below 1 requires
        sharded=true.
    sharding
        Communication, seed and SGD step for ``sharded=True``.
    """

    refused_settings: Mapping[str, str] = {}
    form: Form
    """Options of the scores."""
    columns: Any = None
    random_margin = False
    """Whether margins are random numbers, which the rank that has the image must draw."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        sharded: bool = False,
        sample_rate: Rate = 1.0,
        sharding: Sharding | None = None,
        sub_centers: int = 1,
        **kwargs: Any,
    ) -> None:
        sharding = sharding or Sharding()
        comm = sharding.comm
        shard = Shard.of(num_classes, comm.rank, comm.size) if sharded else None
        super().__init__(
            num_classes, embedding_size, shard=shard, sub_centers=sub_centers, **kwargs
        )
        self.shard, self._comm = shard, comm
        self._sampler: ClassSampler | None = None
        self._centres: ShardCentres | None = None
        if shard is None:
            return
        if sample_rate < 1.0:
            self._sampler = ClassSampler(
                shard.num_rows, sample_rate, seed=sharding.seed, rank=comm.rank
            )
        own_update = sharding.fused or self._sampler is not None
        self._centres = ShardCentres(
            self.weight,
            sharding.step,
            centres_per_class=sub_centers,
            own_update=own_update,
            fused=sharding.fused,
        )

    @staticmethod
    def problems(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a pair (key, sentence) if classes are sampled but not sharded."""
        rate = options.get("sample_rate", 1.0)
        if rate != 1 and not options.get("sharded"):
            yield (
                "sample_rate",
                f"a rate below 1 requires head.sharded=true, got {rate}; set head.sharded=true",
            )

    # ---- What a subclass defines

    def score_rows(self, F: Any, embedding: Any) -> Any:
        """Return the rows (B, E) whose products with the class centres are the scores."""
        return embedding

    def target_score(
        self, F: Any, cosine: Any, fraction: Any, embedding: Any, **state: Any
    ) -> tuple[Any, Any]:
        """Return psi, the score of the true class after the margin, and its slope, (B,) each."""
        return cosine, F.ones_like(cosine)

    def finish_loss(self, F: Any, embedding: Any, loss: Any, cosine: Any, fraction: Any) -> Any:
        """Return the loss of each image plus the terms that a subclass adds, (B,)."""
        return loss

    # ---- State of a sharded head

    @property
    def momentum(self) -> dict[str, mx.nd.NDArray]:
        """SGD momentum of the class centres that the head updates itself, by parameter name.

        The mapping is empty if a trainer updates the class centres, or if their learning rate has
        the factor 0.
        """
        return self._centres.momentum if self._centres else {}

    def update(self, lr: mx.nd.NDArray) -> None:
        """Update the class centres by one step of SGD on the mean loss of the last forward pass.

        Raises
        ------
        RuntimeError
            If no forward pass in training mode has run since the last update.
        """
        assert self._centres is not None, "only a sharded head updates its own class centres"
        self._centres.update(lr)

    def sampler_state(self) -> dict[str, Any]:
        """Return the state of the class sampler, equal on all ranks; empty if there is none."""
        return self._sampler.state if self._sampler else {}

    def load_sampler_state(self, state: Mapping[str, Any]) -> None:
        """Continue the samples from a state that `sampler_state` has returned."""
        if self._sampler and state:
            self._sampler.load_state(state)

    # ---- Prediction and forward pass of a sharded head

    def predict(self, embedding: mx.nd.NDArray) -> mx.nd.NDArray | None:
        """Return the class with the largest logit of all shards; see `Head.predict`.

        All ranks call this method together. The result is None for a head that samples classes,
        because a prediction would have to read all class centres.
        """
        if self.shard is None:
            return super().predict(embedding)
        if self._sampler is not None:
            return None
        comm, shard = self._comm, self.shard
        rows, weight = comm.gather_rows(embedding, "head.predict"), self.weight.list_data()[0]
        score, row = largest_score(rows, weight, unit_columns=self.form.unit_columns)
        if not shard.num_rows:
            score = mx.nd.full(score.shape, NO_LOGIT, ctx=score.context, dtype=score.dtype)
        # This formula is exact in float32; floor(row / sub_centers) is not.
        number = (row - row % self.sub_centers) / self.sub_centers + shard.start
        every = comm.gather_rows(mx.nd.stack(score, number, axis=0).expand_dims(0), "head.nearest")
        _, number = first_largest(every[:, 0].T, every[:, 1].T)  # every: (R, 2, G)
        return number[comm.rank * len(embedding) : (comm.rank + 1) * len(embedding)]

    def forward(self, embedding: Any, label: Any, margin_fraction: Any = None) -> Any:
        if self.shard is None:
            return super().forward(embedding, label, margin_fraction)
        if margin_fraction is None:
            margin_fraction = mx.nd.ones((1,), ctx=embedding.context, dtype=embedding.dtype)
        F, rows = mx.nd, self.score_rows(mx.nd, embedding)
        with autograd.pause(train_mode=autograd.is_training()):
            values = self._exchange(rows.detach(), embedding, label, margin_fraction)
        own_loss, cosine, pull = values
        # The first added term has the value 0 and the gradient ``pull``. The second one lets a
        # backward pass start from the loss also if the net is frozen.
        anchor = F.zeros((1,), ctx=rows.context, dtype=rows.dtype)
        anchor.attach_grad()
        loss = own_loss + F.sum((rows - F.BlockGrad(rows)) * pull, axis=1)
        loss = F.broadcast_add(loss, anchor)
        return self.finish_loss(F, embedding, loss, cosine, margin_fraction), cosine

    def _exchange(
        self, rows: Any, embedding: Any, label: Any, fraction: Any
    ) -> tuple[Any, Any, Any]:
        """Return loss (B,), target cosine (B,) and gradient (B, E) for the images of this rank.

        Each gradient is that of an image's loss with respect to the image's row in ``rows``.
        """
        shard, comm, form = self.shard, self._comm, self.form
        assert shard is not None and self._centres is not None
        own = slice(comm.rank * len(rows), (comm.rank + 1) * len(rows))
        training = autograd.is_training()
        # Horovod: gather int32 labels, because float32 is not exact for large class numbers.
        labels = comm.gather_rows(label.astype("int32"), "head.labels") - shard.start
        all_rows = comm.gather_rows(rows, "head.embeddings")  # (G, E)
        local, centres = self._classes(labels, rows.dtype, training)
        here = local >= 0
        score, row = target_scores(all_rows, centres, local, form)
        centre = normalised(mx.nd, mx.nd.take(centres, row, mode="clip"))
        cosine = mx.nd.sum(normalised(mx.nd, all_rows) * centre, axis=1) * here
        full = score
        if self.needs_all_scores:
            full = comm.sum_rows(score.copy(), "head.scores")
        if training:
            self.update_sharded_statistics(embedding, label, full[own])
        state = {n: p.list_data()[0] for n, p in self._reg_params.items() if n != "weight"}
        psi, slope = self._all_margins(full, fraction, all_rows, own, state)
        changed = self.columns and self.columns(mx.nd, fraction, psi, full, **state)
        targets = Targets(local, row, score, psi, slope, changed)
        scores: Any = NoScores(all_rows)
        if shard.num_rows:
            scores = shard_scores(all_rows, centres, targets, form)
        maximum, total, target, cosine = self._merge(scores, psi * here * form.scale, cosine)
        loss = (maximum - target) + mx.nd.log(total)
        pull = comm.sum_rows(scores.finish(maximum, total), "head.gradients")
        if training:
            self._centres.keep(scores)
        return loss[own], cosine[own], pull[own]

    def _classes(self, labels: Any, dtype: Any, training: bool) -> tuple[Any, Any]:
        """Return the position of each label among the classes in use, and the centres in use.

        A position is -1 if the class of the label is not in use. In training with a sampler, the
        classes of a new sample are in use. Without a sampler or outside training, all classes of
        the shard are in use.
        """
        shard, weight = self.shard, self.weight.list_data()[0]
        assert shard is not None and self._centres is not None
        if self._sampler is None or not training or not shard.num_rows:
            centres = self._centres.use(None) if training else weight
            # A class number that no shard has becomes -2, which the fused operator refuses.
            known = (labels >= -shard.start) * (labels < shard.num_classes - shard.start)
            inside = (labels >= 0) * (labels < shard.num_rows)
            local = mx.nd.where(inside, labels, known - 2)
            return local.astype(dtype), centres
        # Sync: the host waits for the labels of all ranks, but not for the network, on which the
        # labels do not depend.
        numbers = labels.asnumpy()
        self._require_labels(numbers + shard.start)
        sample = self._sampler.draw(numbers)
        place = np.searchsorted(sample, numbers)
        found = sample[np.minimum(place, len(sample) - 1)] == numbers
        local = mx.nd.array(np.where(found, place, -1), ctx=weight.context, dtype=dtype)
        return local, self._centres.use(sample)

    def _require_labels(self, labels: np.ndarray) -> None:
        bad = np.flatnonzero((labels < 0) | (labels >= self.num_classes))
        if len(bad):
            raise ValueError(
                f"head: the label of image {bad[0]} in the batch of all ranks must be one of "
                f"{self.num_classes} classes, got {labels[bad[0]]}; "
                f"use 0 to {self.num_classes - 1}"
            )

    @property
    def needs_all_scores(self) -> bool:
        """Whether a rank needs the true-class scores of all images before it sums exponentials."""
        return self.columns is not None or self.random_margin

    def update_sharded_statistics(self, embedding: Any, label: Any, score: Any) -> None:
        """Update the running statistics with the images of this rank.

        ``score`` holds the scores of the true classes of these images. If `needs_all_scores` is
        false, the score is 0 for each image whose class another rank holds.
        """
        self.update_statistics(embedding, label)

    def _all_margins(
        self, score: Any, fraction: Any, rows: Any, own: slice, state: Mapping[str, Any]
    ) -> tuple[Any, Any]:
        """Return psi and its slope for the images of all ranks, (G,) each."""
        if not self.random_margin:
            return self.target_score(mx.nd, score, fraction, rows, **state)
        both = self.target_score(mx.nd, score[own], fraction, rows[own], **state)
        gathered = self._comm.gather_rows(mx.nd.stack(*both, axis=1), "head.margins")
        return gathered[:, 0], gathered[:, 1]

    def _merge(self, scores: ShardScores, target: Any, cosine: Any) -> tuple[Any, Any, Any, Any]:
        """Merge the values of all shards: maximum, total, target logit and target cosine, (G,)."""
        mine = mx.nd.stack(scores.maximum, scores.total, target, cosine, axis=0)
        every = self._comm.gather_rows(mx.nd.expand_dims(mine, axis=0), "head.sums")  # (R, 4, G)
        maxima, totals = every[:, 0], every[:, 1]
        maximum = mx.nd.max(maxima, axis=0)
        weights = mx.nd.exp(mx.nd.broadcast_sub(maxima, mx.nd.expand_dims(maximum, axis=0)))
        total = mx.nd.sum(totals * weights, axis=0)
        return maximum, total, mx.nd.sum(every[:, 2], axis=0), mx.nd.sum(every[:, 3], axis=0)
