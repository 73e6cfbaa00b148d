# SPDX-License-Identifier: Apache-2.0
"""Class centres of one shard: the rows that take part in a step, and their update."""

from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
from mxnet import gluon

from heads.centre_rows import take_rows, write_rows
from heads.shard_scores import ShardScores


class Step(NamedTuple):
    """Factors of an SGD step on the class centres w with velocity v and gradient g.

    v = momentum v - lr (g + weight_decay w), w = w + v.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0


class ShardCentres:
    """Class centres of one shard, all of them or those of a sample of classes.

    Without ``own_update`` a trainer updates the centres: `keep` writes their gradients to the
    gradient array of the parameter. With ``own_update`` the parameter has no gradient array, and
    `update` updates the centres that took part in the last step.

    Parameters
    ----------
    parameter
        Class centres, (n K, E) for n classes of K centres.
    step
        Factors of SGD.
    centres_per_class
        Number K of centres per class, in adjacent rows.
    own_update
        Whether `update` updates the centres.
    fused
        Whether the fused operator updates the centres, without an array of their gradients.
    """

    def __init__(
        self,
        parameter: gluon.Parameter,
        step: Step,
        *,
        centres_per_class: int,
        own_update: bool,
        fused: bool,
    ) -> None:
        self._parameter, self._step, self._group = parameter, step, centres_per_class
        self._own_update, self._fused = own_update, fused
        self._velocity: mx.nd.NDArray | None = None
        self._rows: mx.nd.NDArray | None = None  # rows of the sample, (m,) int32
        self._used: mx.nd.NDArray | None = None  # centres that take part, (m, E)
        self._scores: Any = None  # scores of the last forward pass
        self._gradient: mx.nd.NDArray | None = None
        if own_update:
            parameter.grad_req = "null"

    def use(self, sample: np.ndarray | None) -> mx.nd.NDArray:
        """Return the centres of a sample of classes, or all centres if ``sample`` is None.

        ``sample`` is a one-dimensional int32 array of class numbers, counted from the first class
        of the shard.
        """
        weight = self._parameter.list_data()[0]
        if sample is None:
            self._rows, self._used = None, weight
            return weight
        rows = (sample[:, None] * self._group + np.arange(self._group, dtype=np.int32)).ravel()
        self._rows = mx.nd.array(rows, ctx=weight.context, dtype="int32")
        self._used = take_rows(weight, self._rows)
        return self._used

    def keep(self, scores: ShardScores) -> None:
        """Write the gradients of the centres for the trainer, or keep the data that `update` needs.

        The gradients are those of the sum of the losses of all ranks.
        """
        if not self._own_update:
            if self._parameter.grad_req != "null":
                scores.centre_gradient(self._parameter.list_grad()[0])
                # Mark the gradient as new. Without the mark Gluon's trainer would refuse it,
                # because no backward pass has written it.
                self._parameter.list_data()[0]._fresh_grad = True
            return
        self._scores = scores
        if not self._fused:
            self._gradient = mx.nd.zeros_like(self._used)
            scores.centre_gradient(self._gradient)

    @property
    def momentum(self) -> dict[str, mx.nd.NDArray]:
        """SGD momentum of all centres of the shard, as a mapping from parameter name to array.

        The mapping is empty if a trainer updates the centres, or if the factor on their learning
        rate is 0.
        """
        if not (self._own_update and self._parameter.lr_mult):
            return {}
        if self._velocity is None:
            self._velocity = mx.nd.zeros_like(self._parameter.list_data()[0])
        return {"weight": self._velocity}

    def update(self, lr: mx.nd.NDArray) -> None:
        """Update the centres that took part in the last forward pass by one step of SGD.

        Parameters
        ----------
        lr
            Learning rate of the run, (1,).

        Raises
        ------
        RuntimeError
            If no forward pass has run since the last update.
        """
        if self._scores is None:
            raise RuntimeError(
                "head.update: no forward pass since the last update; run a forward and a backward "
                "pass before each update"
            )
        scores, self._scores = self._scores, None
        lr, velocity, used = lr * self._parameter.lr_mult, self.momentum["weight"], self._used
        part = velocity if self._rows is None else take_rows(velocity, self._rows)
        momentum, weight_decay = self._step
        assert used is not None and part is not None
        if self._fused:
            scores.update(part, lr, momentum, weight_decay)
        else:
            assert self._gradient is not None
            decay = mx.nd.full((1,), weight_decay, lr.context)
            mx.nd.preloaded_multi_sgd_mom_update(
                used,
                self._gradient,
                part,
                lr,
                decay,
                momentum=momentum,
                rescale_grad=1.0 / len(scores.maximum),
                num_weights=1,
                out=used,
            )
            self._gradient = None
        if self._rows is not None:
            write_rows(self._parameter.list_data()[0], self._rows, used)
            write_rows(velocity, self._rows, part)
        self._used = None
