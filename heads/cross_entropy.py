# SPDX-License-Identifier: Apache-2.0
"""Softmax cross-entropy over all classes, with the fused operator or with plain MXNet operators.

The function `cross_entropy` chooses between them. The fused operator iterates over the classes and
never allocates the (B, C) matrix of logits.

Shapes: B is the number of images in the batch, C the number of classes, E the number of dimensions
of an embedding, K the number of centres per class.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import ops

# Number added to a squared L2 norm before the square root, so that the gradient of the norm is
# finite for a zero vector.
LENGTH_EPSILON = 1e-10


def normalised(F: Any, rows: Any) -> Any:
    """Scale each row to L2 norm 1; a zero row stays zero and has a finite gradient."""
    return F.L2Normalization(rows, mode="instance", eps=LENGTH_EPSILON)


def length(F: Any, rows: Any) -> Any:
    """Return the L2 norm of each row: input (B, E), output (B,)."""
    return F.sqrt(F.sum(F.square(rows), axis=1) + LENGTH_EPSILON)


class Form(NamedTuple):
    """Options of the class scores, which are inner products of embeddings and class centres."""

    scale: float = 1.0
    """Factor on the scores: logit = scale * score."""
    unit_rows: bool = True
    unit_columns: bool = True
    """Whether embeddings (``unit_rows``) and class centres (``unit_columns``) are normalised."""
    group: int = 1
    """Number K of centres per class, in adjacent rows of the weight. The nearest centre of a class
    gives the score of the class."""
    squares: bool = False
    """Whether |centre|^2 / 2 is subtracted from the inner product; requires ``unit_rows=False`` and
    ``unit_columns=False``. The score is then |x|^2 / 2 minus half of the squared distance between
    the embedding x and the centre."""

    def attributes(self) -> dict[str, float]:
        """Return the options that differ from the defaults of the fused operator.

        ``scale`` is always included.
        """
        standard = Form()._asdict()
        changed = {key: int(v) for key, v in self._asdict().items() if v != standard[key]}
        return changed | {"scale": self.scale}


def cross_entropy(
    F: Any,
    rows: Any,
    centres: Any,
    label: Any,
    *,
    num_classes: int,
    form: Form,
    margin: Callable[[Any], tuple[Any, Any]] | None = None,
    columns: Callable[[Any, Any], tuple[Any, Any]] | None = None,
    bias: Any = None,
    dtype: str = "float32",
) -> tuple[Any, Any]:
    """Compute the softmax cross-entropy of each image and the score of its true class.

    Parameters
    ----------
    num_classes
        Number of classes C.
    form
        Options of the scores.
    margin
        Function of the detached score of the true class, (B,). It returns psi, which replaces this
        score, and the slope of psi with respect to the score, (B,) each. None: no margin.
    columns
        Function of psi and of the score of the true class, (B,) each. It returns a threshold (B,)
        and six numbers n0 to n5 as an array (6,), which change the scores of the other classes. A
        score c above the threshold becomes ``(n0 c + n1) c + n2``, with the slope ``n3 c + n4``.
        Any other score c becomes ``n5 c``. None: the scores of the other classes do not change.
    dtype
        Data type to which the labels are cast for the fused operator.

    Inputs
    ------
    rows : (B, E)
        Embeddings.
    centres : (C K, E)
        Class centres.
    label : (B,)
        Class of each image.
    bias : (C,), optional
        Number added to the score of each class.

    Outputs
    -------
    loss, score : (B,) each
        Loss of each image and score of its true class. No gradient flows through the score.

    Notes
    -----
    With the plain operators, oneDNN computes log_softmax in float32 with an error of about 4e-6:
    the loss 0.035680 becomes 0.035683. Without oneDNN, or with the fused operator, the error is
    about 3e-7. The error does not affect training.
    """
    margin = margin or (lambda score: (score, F.ones_like(score)))
    simple = form._replace(scale=1.0) == Form() and columns is None
    if not (ops.fused() if simple else ops.fused_scores()):
        scores = scores_of(F, rows, centres, num_classes, form, bias)
        return _plain(F, scores, label, num_classes, form.scale, margin, columns)
    label = F.cast(label, dtype=dtype)  # float32 holds class numbers exactly up to 2**24
    if bias is not None:
        # Add one dimension: 1 in each embedding, the bias of the class in each class centre.
        rows = F.concat(rows, F.ones_like(F.slice_axis(rows, axis=1, begin=0, end=1)), dim=1)
        centres = F.concat(centres, F.expand_dims(bias, axis=1), dim=1)
    fixed = F.BlockGrad(rows)
    left = normalised(F, fixed) if form.unit_rows else fixed
    scores = [
        own_scores(F, left, centres, label * form.group + place, form)
        for place in range(form.group)
    ]
    if form.group == 1:
        (score,) = scores
    else:
        several = F.stack(*scores, axis=1)  # shape (B, K)
        score, label = F.max(several, axis=1), label * form.group + F.argmax(several, axis=1)
    inputs, attributes = [rows, centres, label, *margin(score)], form.attributes()
    if columns is not None:
        inputs += map(F.BlockGrad, columns(inputs[3], score))
        attributes["columns"] = 1
    return F.face_margin_softmax(*inputs, **attributes)[0], F.BlockGrad(score)


def own_scores(F: Any, left: Any, centres: Any, label: Any, form: Form) -> Any:
    """Return the score of each image with the centre in row ``label`` of ``centres``, (B,).

    ``left`` holds the embeddings (B, E), normalised if ``form.unit_rows`` is true. No gradient
    flows through the centre.
    """
    # Apply BlockGrad after take: BlockGrad(centres) would copy the centres of all classes.
    centre = F.BlockGrad(F.take(centres, label, mode="clip"))
    if form.squares:
        left = left - 0.5 * centre
    return F.sum(left * (normalised(F, centre) if form.unit_columns else centre), axis=1)


def scores_of(F: Any, rows: Any, centres: Any, num_classes: int, form: Form, bias: Any) -> Any:
    """Return the scores of all classes, shape (B, C)."""
    if form.squares:
        bias = -0.5 * F.sum(F.square(centres), axis=1)
    biases = {} if bias is None else {"bias": bias}
    scores = F.FullyConnected(
        normalised(F, rows) if form.unit_rows else rows,
        normalised(F, centres) if form.unit_columns else centres,
        num_hidden=num_classes * form.group,
        no_bias=bias is None,
        **biases,
    )
    if form.group > 1:
        # Use argmax and pick instead of max: if several centres are equally near, max passes a
        # gradient to each of them, but the fused operator passes it to the first one only.
        several = F.reshape(scores, shape=(0, num_classes, form.group))
        scores = F.pick(several, F.argmax(F.BlockGrad(several), axis=2), axis=2)
    return scores


def _plain(
    F: Any, scores: Any, label: Any, num_classes: int, scale: float, margin: Any, columns: Any
) -> tuple[Any, Any]:
    target = F.pick(scores, label, axis=1)  # shape (B,)
    fixed = F.BlockGrad(target)
    psi, slope = margin(fixed)
    if columns is not None:
        scores = reweighed(F, scores, *columns(psi, fixed))
    # The value of `target - fixed` is 0: the second term adds a gradient to psi and leaves the
    # value of psi unchanged.
    psi = F.BlockGrad(psi) + F.BlockGrad(slope) * (target - fixed)
    place = F.contrib.arange_like(label).astype("int32") * num_classes
    place = place + F.clip(label, 0, num_classes - 1).astype("int32")
    logits = F.contrib.index_copy(F.reshape(scores, shape=(-1,)), place, psi) * scale
    logits = F.reshape_like(logits, scores)
    return -F.pick(F.log_softmax(logits, axis=1), label, axis=1), fixed


def reweighed(F: Any, scores: Any, threshold: Any, numbers: Any) -> Any:
    """Return the scores (B, C), changed by the output of the ``columns`` function.

    `cross_entropy` describes the two outputs of that function, ``threshold`` and ``numbers``.
    """
    square, linear, constant, slope_linear, slope_constant, rest = (
        F.reshape(F.BlockGrad(part), shape=(1, 1)) for part in F.split(numbers, 6, axis=0)
    )
    fixed = F.BlockGrad(scores)
    hard = F.broadcast_greater(fixed, F.expand_dims(F.BlockGrad(threshold), axis=1))
    value = F.broadcast_add(F.broadcast_mul(fixed, square), linear) * fixed
    value = F.where(hard, F.broadcast_add(value, constant), F.broadcast_mul(fixed, rest))
    slope = F.broadcast_add(F.broadcast_mul(fixed, slope_linear), slope_constant)
    slope = F.where(hard, slope, F.broadcast_mul(F.ones_like(fixed), rest))
    return F.BlockGrad(value) + F.BlockGrad(slope) * (scores - fixed)


def column_numbers(F: Any, fraction: Any, value: list, slope: list, rest: float) -> Any:
    """Pack the six numbers that a ``columns`` function returns to `cross_entropy`, shape (6,).

    Parameters
    ----------
    fraction
        Margin fraction, shape (1,); only its type and device are used.
    value
        Coefficients n0, n1 and n2 of the new score of a class above the threshold, each a number or
        an array of shape (1,).
    slope
        Coefficients n3 and n4 of the slope of the new score, each a number or an array of shape
        (1,).
    rest
        Factor n5 on the scores that are not above the threshold.
    """
    one = F.ones_like(fraction)
    return F.concat(*[one * number for number in [*value, *slope, rest]], dim=0)


def through_psi(F: Any, loss: Any, quantity: Any, scale: float) -> Any:
    """Return the loss plus a term for the part of psi's gradient that bypasses the score.

    psi is the score of the true class after the margin. `cross_entropy` passes gradients through
    the score before the margin only. A margin that also depends on the embedding in another form,
    for example on its norm, needs the added term. The term has the value 0 and the gradient
    ``(d loss / d psi) * (d quantity)``, where ``d loss / d psi = scale * (p - 1)`` and
    ``p = exp(-loss)`` is the probability of the true class.

    Parameters
    ----------
    scale
        Factor between psi and the logit.

    Inputs
    ------
    loss : (B,)
        Softmax cross-entropy of each image.
    quantity : (B,)
        Array whose gradient is the part of psi's gradient that bypasses the score.
    """
    pull = F.BlockGrad((F.exp(-loss) - 1.0) * scale)
    return loss + pull * (quantity - F.BlockGrad(quantity))
