# SPDX-License-Identifier: Apache-2.0
"""Plain softmax loss, the base class of the losses that add a term to the softmax loss."""

from collections.abc import Iterator
from typing import Any

import mxnet as mx
from mxnet import init

from heads.cross_entropy import Form, normalised
from heads.head import NOT_FILTERED, Head
from heads.prediction import nearest_centre
from heads.sharded import ShardedClasses


class Softmax(ShardedClasses):
    """Softmax on inner products with one weight vector per class.

    logits w_j . x + b_j

    Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990.

    Symbols: x is the embedding; w_j and b_j are the weight vector and the bias of class j.

    Equation 1 of Deng et al., "ArcFace", arXiv:1801.07698, is the same loss. The input
    ``margin_fraction`` has no effect.

    Parameters
    ----------
    use_bias
        Whether each class has a learned bias. A bias favours frequent classes.
    """

    refused_settings = NOT_FILTERED
    form = Form(unit_rows=False, unit_columns=False)

    def __init__(self, *sizes: int, use_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(*sizes, **kwargs)
        if use_bias:
            with self.name_scope():
                self.bias = self.params.get("bias", shape=(self.num_classes,), init=init.Zero())

    @staticmethod
    def problems(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a pair (key, sentence) for each setting that contradicts another setting."""
        yield from ShardedClasses.problems(options)
        if options["use_bias"] and options.get("sharded"):
            yield (
                "use_bias",
                "requires head.sharded=false, got head.sharded=true; set head.use_bias=false",
            )

    def forward(self, embedding: Any, label: Any, margin_fraction: Any = None) -> Any:
        if self.shard is not None:
            return super().forward(embedding, label, margin_fraction)
        # Softmax has no margin, and MXNet warns about unused inputs: do not pass the fraction.
        return super(Head, self).forward(embedding, label)

    def predict(self, embedding: mx.nd.NDArray) -> mx.nd.NDArray | None:
        if self.shard is not None:
            return super().predict(embedding)
        rows = self.score_rows(mx.nd, embedding)
        bias = self._reg_params.get("bias")
        return nearest_centre(
            rows,
            self.weight.list_data()[0],
            unit_columns=False,
            bias=None if bias is None else bias.list_data()[0],
        )

    def hybrid_forward(
        self, F: Any, embedding: Any, label: Any, weight: Any, bias: Any = None, **state: Any
    ) -> tuple[Any, Any]:
        unit = normalised(F, embedding)
        rows = self.score_rows(F, embedding)
        loss, _ = self.cross_entropy(F, rows, weight, label, form=self.form, bias=bias)
        term = self.added_term(F, embedding, label, **state)
        if term is not None:
            loss = F.broadcast_add(loss, term)
        centre = F.BlockGrad(F.take(weight, label, mode="clip"))
        return loss, F.BlockGrad(F.sum(unit * normalised(F, centre), axis=1))

    def added_term(self, F: Any, *arrays: Any, **state: Any) -> Any:
        """Return the term that a loss adds to the cross-entropy, or None if the loss adds no term.

        The term has one value per image or a single value, shape (1,). ``arrays`` are the embedding
        and the label. ``state`` holds the parameters of the head except weight and bias.
        """
        return None
