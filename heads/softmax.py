# SPDX-License-Identifier: Apache-2.0
"""Plain softmax, the base class of the losses that add a term to it."""

from typing import Any

from mxnet import init

from heads.cross_entropy import Form, normalised
from heads.head import ClassHead, Head


class Softmax(ClassHead):
    """Softmax on inner products with one weight vector per class.

    w_j . x + b_j

    Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990.

    It is the softmax loss in equation 1 of Deng et al., "ArcFace", arXiv:1801.07698. A margin
    fraction has no effect.

    Parameters
    ----------
    use_bias
        Whether each class has a bias, which favours frequent classes.
    """

    def __init__(self, *sizes: int, use_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(*sizes, **kwargs)
        if use_bias:
            with self.name_scope():
                self.bias = self.params.get("bias", shape=(self._num_classes,), init=init.Zero())

    def forward(self, embedding: Any, label: Any, margin_fraction: Any = None) -> Any:
        # MXNet warns of an unused input, so the graph has no margin fraction.
        return super(Head, self).forward(embedding, label)

    def hybrid_forward(
        self, F: Any, embedding: Any, label: Any, weight: Any, bias: Any = None, **state: Any
    ) -> tuple[Any, Any]:
        unit = normalised(F, embedding)
        rows, form = self._rows(embedding, unit), Form(unit_rows=False, unit_columns=False)
        loss, _ = self.cross_entropy(F, rows, weight, label, form=form, bias=bias)
        term = self.added_term(F, embedding, label, **state)
        if term is not None:
            loss = F.broadcast_add(loss, term)
        centre = F.BlockGrad(F.take(weight, label, mode="clip"))  # (B, E)
        return loss, F.BlockGrad(F.sum(unit * normalised(F, centre), axis=1))

    def _rows(self, embedding: Any, unit: Any) -> Any:
        """Return the vectors to multiply with the class vectors, (B, E)."""
        return embedding

    def added_term(self, F: Any, *arrays: Any, **state: Any) -> Any:
        """Return the term that a loss adds to the cross-entropy, (B,) or (1,), or None.

        It is called with the embedding and the label. The head's parameters except weight and bias
        are keyword arguments.
        """
        return None
