# SPDX-License-Identifier: Apache-2.0
"""Plain softmax, the base of the losses that add a term to it."""

from mxnet import init

from heads.cross_entropy import Form, cross_entropy, normalised
from heads.head import ClassHead, Head


class Softmax(ClassHead):
    """Softmax on inner products with one weight vector for each class.

    w_j . x + b_j

    Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990.

    As the softmax loss it is equation 1 of Deng et al., "ArcFace", arXiv:1801.07698. A margin
    fraction has no effect.

    Parameters
    ----------
    use_bias
        Whether each class has a bias, which favours frequent classes.
    center_weight
        Factor on half the squared distance to the class's own centre.
    center_rate
        Share of the way that a centre goes.
    """

    def __init__(
        self, num_classes: int, embedding_size: int, *, use_bias: bool = False, **kwargs
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        if use_bias:
            with self.name_scope():
                self.bias = self.params.get("bias", shape=(num_classes,), init=init.Zero())

    def forward(self, embedding, label, margin_fraction=None):
        return super(Head, self).forward(embedding, label)  # without a fraction

    def hybrid_forward(self, F, embedding, label, weight, bias=None, **state):
        unit = normalised(F, embedding)
        loss, _ = cross_entropy(
            F,
            self._rows(embedding, unit),
            weight,
            label,
            num_classes=self._num_classes,
            form=Form(unit_rows=False, unit_columns=False),
            bias=bias,
            dtype=self._dtype,
        )
        term = self.added_term(F, embedding, label, **state)
        if term is not None:
            loss = F.broadcast_add(loss, term)
        centre = F.BlockGrad(F.take(weight, label, mode="clip"))  # (B, E)
        return loss, F.BlockGrad(F.sum(unit * normalised(F, centre), axis=1))

    def _rows(self, embedding, unit):
        """Return what the class vectors are multiplied with, (B, E)."""
        return embedding

    def added_term(self, F, embedding, label):
        """Return what a joint loss adds to the cross-entropy, (B,) or (1,), or None.

        Parameters of the head but weight and bias follow as keyword arguments.
        """
        return None
