# SPDX-License-Identifier: Apache-2.0
"""Plain softmax cross-entropy on inner products, of embeddings as they are or of one length."""

import math

import numpy as np
from mxnet import gluon, init

from heads.checks import check_count, check_flag, check_number
from heads.cross_entropy import Form, cross_entropy, normalised

PROBABILITY = 0.9  # that a class must be able to reach


class Softmax(gluon.HybridBlock):
    """Inner products with one weight vector per class, softmax cross-entropy.

    Parameters
    ----------
    num_classes
        Number of classes C.
    embedding_size
        Length E of the embedding.
    use_bias
        Whether each class has a bias, which favours frequent classes.
    scale
        Length that embeddings are brought to; 0 leaves them as they are.

    Inputs
    ------
    embedding : (B, E) float32
    label : (B,) float32 or int32
        Class of each image, 0 to C - 1.
    margin_fraction : (1,) float32, optional
        Taken so that all heads are called alike; has no effect.

    Outputs
    -------
    loss : (B,) float32
    target_cosine : (B,) float32
        Cosine to the true class's weight vector; no gradient flows through it.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        use_bias: bool = False,
        scale: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self._num_classes, self._scale, self._dtype = num_classes, scale, "float32"
        with self.name_scope():
            self.weight = self.params.get(
                "weight", shape=(num_classes, embedding_size), init=init.Normal(0.01)
            )
            if use_bias:
                self.bias = self.params.get("bias", shape=(num_classes,), init=init.Zero())

    def cast(self, dtype):
        super().cast(dtype)
        self._dtype = np.dtype(dtype).name

    def forward(self, embedding, label, margin_fraction=None):
        return super().forward(embedding, label)

    def hybrid_forward(self, F, embedding, label, weight, bias=None, **state):
        unit = normalised(F, embedding)
        loss, _ = cross_entropy(
            F,
            unit * self._scale if self._scale else embedding,
            weight,
            label,
            self._num_classes,
            Form(unit_rows=False, unit_columns=False),
            bias=bias,
            dtype=self._dtype,
        )
        beside = self._beside(F, embedding, label, **state)
        if beside is not None:
            loss = F.broadcast_add(loss, beside)
        centre = F.BlockGrad(F.take(weight, label, mode="clip"))  # (B, E)
        return loss, F.BlockGrad(F.sum(unit * normalised(F, centre), axis=1))

    def _beside(self, F, embedding, label):
        """Return what a joint loss adds to the cross-entropy, (B,) or (1,)."""
        return None


def softmax(num_classes: int, embedding_size: int, *, use_bias: bool = False) -> Softmax:
    """Build a plain softmax.

    -log softmax_y of the logits w_j . x + b_j, of the embedding x and the vector w_j and bias b_j
    of class j, y being the true class; b is 0 without `use_bias`.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    use_bias
        Whether each class has a bias.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990; as
    the softmax loss it is equation 1 of Deng et al., "ArcFace", arXiv:1801.07698.
    """
    return Softmax(**check_classes(num_classes, embedding_size, use_bias))


def l2_softmax(
    num_classes: int, embedding_size: int, *, scale: float = 0.0, use_bias: bool = False
) -> Softmax:
    """Build a softmax on embeddings of one length, with class vectors of any.

    -log softmax_y of the logits scale w_j . x / |x| + b_j.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    scale
        Length of the embeddings, alpha in the paper; 0 takes the least with which a class can
        reach a probability of 0.9 (13.6 for 85,742 people).
    use_bias
        Whether each class has a bias.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type, or the scale is below that bound.

    Notes
    -----
    Ranjan et al., "L2-constrained Softmax Loss", arXiv:1703.09507, equations 3 and 7: the bound is
    log(p (C - 2) / (1 - p)).
    """
    checked = check_classes(num_classes, embedding_size, use_bias)
    least = math.log(max(PROBABILITY * (checked["num_classes"] - 2) / (1 - PROBABILITY), 2.0))
    advice = f"below {least:.3g} no class of {num_classes} reaches a probability of {PROBABILITY}"
    if scale:
        scale = check_number("head.scale", scale, round(least, 3), math.inf, advice=advice)
    else:
        scale = check_number("head.scale", scale, 0, 0, advice=advice) or least
    return Softmax(**checked, scale=scale)


def check_classes(num_classes: int, embedding_size: int, use_bias: bool) -> dict:
    """Return what all heads of inner products take, as keyword arguments.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.
    """
    return {
        "num_classes": check_count(
            "num_classes", num_classes, 2, advice="a softmax needs two to choose from"
        ),
        "embedding_size": check_count(
            "embedding_size", embedding_size, 1, advice="give that of the net"
        ),
        "use_bias": check_flag("head.use_bias", use_bias),
    }
