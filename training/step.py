# SPDX-License-Identifier: Apache-2.0
"""One training step: forward, backward and update, without waiting for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import mxnet as mx
from mxnet import autograd, gluon

NO_DECAY_SUFFIXES = ("bias", "beta", "gamma", "alpha", "radius")
"""Name suffixes of parameters without weight decay (biases, BatchNorm, PReLU, Ring loss)."""

SumOverRanks = Callable[[mx.nd.NDArray], mx.nd.NDArray]


@dataclass(frozen=True)
class Model:
    """Net, head, and the trainers of their parameters."""

    net: gluon.HybridBlock
    head: gluon.HybridBlock
    trainer: gluon.Trainer
    parameters: Mapping[str, gluon.Parameter]
    """All parameters of net and head by name, as `collect_parameters` returns them."""
    shard_trainer: gluon.Trainer | None = None
    """Trainer of the class centres of a distributed head; None if ``trainer`` trains all, or if the
    head updates its own class centres."""

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate of both trainers."""
        self.trainer.set_learning_rate(lr)
        if self.shard_trainer:
            self.shard_trainer.set_learning_rate(lr)


def collect_parameters(net: gluon.Block, head: gluon.Block) -> dict[str, gluon.Parameter]:
    """Return all parameters of net and head by the names ``net.<name>`` and ``head.<name>``."""
    return {
        f"{part}.{name}": parameter
        for part, block in (("net", net), ("head", head))
        for name, parameter in sorted(block._collect_params_with_prefix().items())
    }


def build_optimizer(
    parameters: Mapping[str, gluon.Parameter],
    name: str,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> mx.optimizer.Optimizer:
    """Create the optimizer ``name`` ("sgd" or "nag").

    Weight decay is disabled for the parameters whose names end with one of NO_DECAY_SUFFIXES.
    """
    for key, parameter in parameters.items():
        if key.endswith(NO_DECAY_SUFFIXES):
            parameter.wd_mult = 0.0
    return mx.optimizer.create(name, learning_rate=lr, momentum=momentum, wd=weight_decay)


def train_step(
    net: gluon.Block,
    head: gluon.Block,
    trainer: gluon.Trainer,
    image: mx.nd.NDArray,
    label: mx.nd.NDArray,
    margin_fraction: mx.nd.NDArray,
    *,
    clip_norm: float = 0.0,
    size: int = 1,
    shard_trainer: gluon.Trainer | None = None,
    sum_over_ranks: SumOverRanks = lambda array: array,
    observe: Callable[[mx.nd.NDArray, mx.nd.NDArray], None] | None = None,
) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
    """Run forward, backward and update on one batch of this rank.

    Parameters
    ----------
    net, head, trainer
        The trainer updates the parameters of net and head.  A head that updates its own class
        centres uses the learning rate of the trainer.
    image, label
        Images (B, 3, H, W) and class labels (B,) of the batch.
    margin_fraction
        Fraction of the margin in use, from 0 to 1, as an array (1,).
    clip_norm
        Upper bound of the global L2 norm of the gradients; 0 disables clipping.  The gradients are
        those of the mean loss of all ranks.
    size
        Number of ranks.
    shard_trainer
        Trainer of the class centres of a distributed head, see `Model`.
    sum_over_ranks
        Function that sums an array over the ranks.  It is called only if gradients are clipped and
        ``shard_trainer`` is given.
    observe
        Function that is called with the embeddings (B, E) and the labels (B,) before the update.
        The next forward pass overwrites the embeddings.

    Returns
    -------
    loss, cosine
        Mean loss and mean cosine over the batch, (1,) each, not yet copied from the device.
    """
    batch_size = image.shape[0]
    with autograd.record():
        embedding = net(image)  # (B, E)
        loss, cosine = head(embedding, label, margin_fraction)
    loss.backward()
    if observe is not None:
        observe(embedding, label)
    # Horovod: sum the gradients over the ranks; trainer.update divides the sums by the number of
    # images of all ranks.
    trainer.allreduce_grads()
    if clip_norm:
        clip_gradients(trainer, clip_norm * batch_size * size, shard_trainer, sum_over_ranks)
    trainer.update(batch_size)
    if shard_trainer:  # the shard's gradients are sums over the images of all ranks
        shard_trainer.update(batch_size * size)
    if getattr(head, "momentum", None):  # the head updates its own class centres
        head.update(mx.nd.array([trainer.learning_rate], ctx=image.context))
    return loss.mean(), cosine.mean()


def measure_accuracy(
    head: gluon.HybridBlock, embedding: mx.nd.NDArray, label: mx.nd.NDArray
) -> mx.nd.NDArray | None:
    """Return the fraction of the images whose predicted class is the true class, (1,).

    The prediction is the class with the largest logit without margin.  The result is None if
    the head has no logits.  The inputs are embeddings (B, E) and labels (B,).
    """
    predicted = head.predict(embedding)
    return None if predicted is None else (predicted == label).mean()


def clip_gradients(
    trainer: gluon.Trainer,
    limit: float,
    shard_trainer: gluon.Trainer | None = None,
    sum_over_ranks: SumOverRanks = lambda array: array,
) -> None:
    """Scale all gradients in place so that their global L2 norm is at most ``limit``.

    The norm includes the gradients of ``shard_trainer`` on all ranks; ``sum_over_ranks`` sums an
    array over the ranks.  The host does not wait for the device.
    """
    gradients = list(trained_gradients(trainer))
    square = _square_norm(gradients)
    if shard_trainer:
        own = list(trained_gradients(shard_trainer))
        square = square + sum_over_ranks(_square_norm(own))
        gradients += own
    factor = mx.nd.minimum(limit / (mx.nd.sqrt(square) + 1e-12), 1.0)
    for gradient in gradients:
        gradient *= factor.reshape((1,) * gradient.ndim)


def _square_norm(gradients: Sequence[mx.nd.NDArray]) -> mx.nd.NDArray:
    """Return the square of the global L2 norm of some gradients, (1,)."""
    squares = [mx.nd.multi_sum_sq(*g, num_arrays=len(g)).sum() for g in _portions(gradients)]
    return mx.nd.add_n(*squares)


def trained_gradients(trainer: gluon.Trainer) -> Sequence[mx.nd.NDArray]:
    """Return the gradients of all parameters of a trainer that are not frozen."""
    return [p.list_grad()[0] for p in trainer._params if p.grad_req != "null"]


def all_finite(arrays: Sequence[mx.nd.NDArray]) -> bool:
    """Return True if no array holds NaN or infinity."""
    # Sync: the host reads one number per portion from the device.
    return all(
        mx.nd.multi_all_finite(*some, num_arrays=len(some)).asscalar() for some in _portions(arrays)
    )


def _portions(arrays: Sequence[mx.nd.NDArray]) -> Iterator[Sequence[mx.nd.NDArray]]:
    """Yield the arrays in portions of at most 100.

    MXNet's multi_* operators overflow a buffer if they get more than 200 arrays.
    """
    for start in range(0, len(arrays), 100):
        yield arrays[start : start + 100]
