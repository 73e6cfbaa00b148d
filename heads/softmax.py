# SPDX-License-Identifier: Apache-2.0
"""Plain softmax loss, the base class of the losses that add a term to the softmax loss."""

from typing import Any

import mxnet as mx
from mxnet import init

from heads.cross_entropy import Form, normalised
from heads.head import ClassHead, Head
from heads.prediction import nearest_centre


class Softmax(ClassHead):
    """Softmax on inner products with one weight vector per class.

    logits w_j . x + b_j

    Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990.

    Symbols: x is the embedding; w_j and b_j are the weight vector and the bias of class j.

    Equation 1 of Deng et al., "ArcFace", arXiv:1801.07698, is the same loss. A margin fraction has
    no effect.

    Parameters
    ----------
    use_bias
        Whether each class has a learned bias. A bias favours frequent classes.
    """

    def __init__(self, *sizes: int, use_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(*sizes, **kwargs)
        if use_bias:
            with self.name_scope():
                self.bias = self.params.get("bias", shape=(self._num_classes,), init=init.Zero())

    def forward(self, embedding: Any, label: Any, margin_fraction: Any = None) -> Any:
        # Softmax has no margin, and MXNet warns about unused inputs: do not pass the fraction.
        return super(Head, self).forward(embedding, label)

    def predict(self, embedding: mx.nd.NDArray) -> mx.nd.NDArray:
        rows = self._rows(embedding, normalised(mx.nd, embedding))
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
        rows, form = self._rows(embedding, unit), Form(unit_rows=False, unit_columns=False)
        loss, _ = self.cross_entropy(F, rows, weight, label, form=form, bias=bias)
        term = self.added_term(F, embedding, label, **state)
        if term is not None:
            loss = F.broadcast_add(loss, term)
        centre = F.BlockGrad(F.take(weight, label, mode="clip"))
        return loss, F.BlockGrad(F.sum(unit * normalised(F, centre), axis=1))

    def _rows(self, embedding: Any, unit: Any) -> Any:
        """Return the rows whose inner products with the class vectors are the scores.

        Rows and inputs have the shape (batch size, embedding size). ``unit`` is the normalised
        embedding.
        """
        return embedding

    def added_term(self, F: Any, *arrays: Any, **state: Any) -> Any:
        """Return the term that a loss adds to the cross-entropy, or None without such a term.

        The term has one value per image or a single value, shape (1,). ``arrays`` are the embedding
        and the label. ``state`` holds the parameters of the head except weight and bias.
        """
        return None
