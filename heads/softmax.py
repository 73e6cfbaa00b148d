# SPDX-License-Identifier: Apache-2.0
"""Plain softmax cross-entropy on inner products, of embeddings as they are or of one length."""

import math

from mxnet import gluon, init

from heads.checks import check_count, check_flag, check_number

# Added to a squared length before the root, so that the logged cosine of a zero vector is 0.
LENGTH_EPSILON = 1e-10
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
        self._num_classes, self._scale = num_classes, scale
        with self.name_scope():
            self.weight = self.params.get(
                "weight", shape=(num_classes, embedding_size), init=init.Normal(0.01)
            )
            if use_bias:
                self.bias = self.params.get("bias", shape=(num_classes,), init=init.Zero())

    def forward(self, embedding, label, margin_fraction=None):
        return super().forward(embedding, label)

    def hybrid_forward(self, F, embedding, label, weight, bias=None):
        unit_embedding = F.L2Normalization(embedding, mode="instance", eps=LENGTH_EPSILON)
        rows = unit_embedding * self._scale if self._scale else embedding
        logits = F.FullyConnected(  # (B, C)
            *((rows, weight) if bias is None else (rows, weight, bias)),
            num_hidden=self._num_classes,
            no_bias=bias is None,
        )
        loss = -F.pick(F.log_softmax(logits, axis=1), label, axis=1)
        centre = F.take(weight, label)  # (B, E)
        unit_centre = F.L2Normalization(centre, mode="instance", eps=LENGTH_EPSILON)
        return loss, F.BlockGrad(F.sum(unit_embedding * unit_centre, axis=1))


def softmax(num_classes: int, embedding_size: int, *, use_bias: bool = False) -> Softmax:
    """Build a plain softmax.

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
    """
    return Softmax(**_checked(num_classes, embedding_size, use_bias))


def l2_softmax(
    num_classes: int, embedding_size: int, *, scale: float = 0.0, use_bias: bool = False
) -> Softmax:
    """Build a softmax on embeddings of one length, with class vectors of any.

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
    checked = _checked(num_classes, embedding_size, use_bias)
    least = math.log(max(PROBABILITY * (checked["num_classes"] - 2) / (1 - PROBABILITY), 2.0))
    advice = f"below {least:.3g} no class of {num_classes} reaches a probability of {PROBABILITY}"
    if scale:
        scale = check_number("head.scale", scale, round(least, 3), math.inf, advice=advice)
    else:
        scale = check_number("head.scale", scale, 0, 0, advice=advice) or least
    return Softmax(**checked, scale=scale)


def _checked(num_classes, embedding_size, use_bias):
    return {
        "num_classes": check_count(
            "num_classes", num_classes, 2, advice="a softmax needs two to choose from"
        ),
        "embedding_size": check_count(
            "embedding_size", embedding_size, 1, advice="give that of the net"
        ),
        "use_bias": check_flag("head.use_bias", use_bias),
    }
