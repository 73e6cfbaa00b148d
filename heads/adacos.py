# SPDX-License-Identifier: Apache-2.0
"""AdaCos: a softmax loss that adapts its scale to each batch."""

import math
from typing import Any

import mxnet as mx

import ops
from heads.cross_entropy import Form, normalised
from heads.head import ClassHead, require
from heads.statistics import TracedFunction, create_state
from ranges import at_least

# Logit given to a class that a sum of exponentials must skip: exp(-1000) is 0 in float32.
EXCLUDED_LOGIT = -1000.0
# Bounds of the adapted scale. With few classes, the centres of all other classes may lie opposite
# to the embeddings: log(A), and therefore the scale, would be negative without the lower bound. If
# the class centres are crowded, for example in embeddings of two dimensions, the scale would grow
# from step to step without the upper bound.
MIN_SCALE, MAX_SCALE = 1e-3, 1e3


class AdaCos(ClassHead):
    """Softmax on cosines with a scale that adapts to each batch.

    logits s c_j, s = log(A) / cos(min(pi / 4, median t)),
    A = mean over images of the sum over other classes of exp(s c_j)

    Zhang et al., "AdaCos", arXiv:1905.00292, equations 12 to 15.

    Symbols: c_j is the cosine of an embedding to the centre of class j; t is its angle to the
    centre of the true class; s in A is the previous scale.

    The initial scale is sqrt(2) log(C - 1) for C classes. Each training batch sets a new scale,
    clipped to the range from 0.001 to 1000. The input ``margin_fraction`` has no effect. A step
    computes all scores twice, once for the scale and once for the loss.
    """

    def __init__(self, num_classes: int, embedding_size: int, **kwargs: Any) -> None:
        advice = "adacos needs at least three classes to compute its scale"
        require("num_classes", int, at_least(3, advice), num_classes)
        super().__init__(num_classes, embedding_size, **kwargs)
        self._batch_rows = TracedFunction(self._rows)
        first = math.sqrt(2.0) * math.log(num_classes - 1)
        self.scale = create_state(self, "scale", (1,), mx.init.Constant(first))

    def update_statistics(self, embedding: mx.nd.NDArray, label: mx.nd.NDArray) -> None:
        scale = self.scale.list_data()[0]
        rows = self._batch_rows(embedding, label, self.weight.list_data()[0], scale)
        scale[:] = self._reduce(rows, _adapted_scale)

    def _rows(self, F: Any, embedding: Any, label: Any, weight: Any, scale: Any) -> Any:
        """Return the two numbers per image from which the scale is computed, shape (batch size, 2).

        Column 0 is the logarithm of the sum of exp(scale * cosine) over all classes except the true
        class. Column 1 is the angle to the centre of the true class, in radians.
        """
        unit = normalised(F, embedding)
        rows = F.broadcast_mul(unit, F.reshape(scale, shape=(1, 1)))
        centre = normalised(F, F.take(weight, label, mode="clip"))
        angle = F.arccos(F.clip(F.sum(unit * centre, axis=1), -1.0, 1.0))
        if ops.fused_scores():
            label = F.cast(label, dtype=self._dtype)
            excluded = F.ones_like(angle) * EXCLUDED_LOGIT
            _, _, top, total, _, _ = F.face_margin_softmax(
                rows, weight, label, excluded, excluded, scale=1.0, unit_rows=0, pulls=0
            )
            return F.stack(F.log(total) + top, angle, axis=1)
        classes = self.num_classes
        logits = F.FullyConnected(rows, normalised(F, weight), num_hidden=classes, no_bias=True)
        excluded = F.ones_like(logits) * EXCLUDED_LOGIT
        logits = F.where(F.one_hot(label, classes), excluded, logits)
        top = F.max(logits, axis=1, keepdims=True)
        total = F.sum(F.exp(F.broadcast_sub(logits, top)), axis=1)
        return F.stack(F.log(total) + F.reshape(top, shape=(-1,)), angle, axis=1)

    def hybrid_forward(
        self, F: Any, embedding: Any, label: Any, margin_fraction: Any, weight: Any, scale: Any
    ) -> tuple[Any, Any]:
        factor = F.BlockGrad(F.reshape(scale, shape=(1, 1)))
        rows = F.broadcast_mul(normalised(F, embedding), factor)
        form = Form(unit_rows=False)
        loss, score = self.cross_entropy(F, rows, weight, label, form=form)
        return loss, F.broadcast_div(score, F.reshape(factor, shape=(1,)))


def _adapted_scale(rows: mx.nd.NDArray) -> mx.nd.NDArray:
    """Return the new scale, shape (1,).

    ``rows`` is the output of `AdaCos._rows` for the images of all ranks, shape (images, 2).
    """
    others, angles = rows[:, 0], mx.nd.sort(rows[:, 1], axis=0)
    top, middle = others.max(), (len(rows) - 1) // 2
    mean = mx.nd.log(mx.nd.exp(others - top).mean()) + top
    median = angles[middle : middle + 2 - len(rows) % 2].mean()
    scale = mean / mx.nd.cos(mx.nd.minimum(median, math.pi / 4))
    return mx.nd.clip(scale, MIN_SCALE, MAX_SCALE)
