# SPDX-License-Identifier: Apache-2.0
"""Softmax cross-entropy over all classes, with the fused operator or in plain Gluon.

Heads with class centres choose between the two only here. The fused operator iterates over the
classes and never allocates the (B, C) matrix of logits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import ops

# Added to a squared length before the square root, so that a zero vector has a finite gradient.
LENGTH_EPSILON = 1e-10


def normalised(F: Any, rows: Any) -> Any:
    """Scale rows to length 1; a zero row stays zero, with a finite gradient."""
    return F.L2Normalization(rows, mode="instance", eps=LENGTH_EPSILON)


def length(F: Any, rows: Any) -> Any:
    """Return the length of each row, (B,) from (B, E)."""
    return F.sqrt(F.sum(F.square(rows), axis=1) + LENGTH_EPSILON)


class Form(NamedTuple):
    """Formula of a class's score: the inner product of embedding and centre, and its changes."""

    scale: float = 1.0
    """Factor on the scores; the products are the logits of the softmax."""
    unit_rows: bool = True
    unit_columns: bool = True
    """Whether embeddings and centres are normalised."""
    group: int = 1
    """Number of centres per class K, in adjacent rows: the nearest one counts."""
    squares: bool = False
    """Whether |centre|^2 / 2 is subtracted, only without normalisation: the score is then
    |x|^2 / 2 minus half of the squared distance."""

    def attributes(self) -> dict[str, float]:
        """Return the attributes of the fused operator that differ from its defaults, and scale."""
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
    """Return the loss per image and the score of the true class.

    Parameters
    ----------
    margin
        Returns psi and its slope, (B,) each, from the detached score of the true class. psi
        replaces the score.
    columns
        Returns a threshold (B,) and six numbers (6,) from psi and the score of the true class, (B,)
        each. A score c of another class above the threshold becomes (n0 c + n1) c + n2, with the
        slope n3 c + n4; below the threshold it becomes n5 c.

    Inputs
    ------
    rows, centres, label : (B, E), (C K, E), (B,)
    bias : (C,), optional
        Added to the scores.

    Outputs
    -------
    loss, score : (B,) each
        No gradient flows through the score.

    Notes
    -----
    In float32, oneDNN computes the log_softmax of the plain form with an error of about 4e-6: the
    loss 0.035680 becomes 0.035683. The error is about 3e-7 without oneDNN and in the native form.
    Training is not affected.
    """
    margin = margin or (lambda score: (score, F.ones_like(score)))
    simple = form._replace(scale=1.0) == Form() and columns is None
    if not (ops.fused() if simple else ops.fused_scores()):
        scores = _scores(F, rows, centres, num_classes, form, bias)
        return _plain(F, scores, label, num_classes, form.scale, margin, columns)
    label = F.cast(label, dtype=dtype)  # exact up to 2**24 classes
    if bias is not None:  # as an additional dimension, in which every row is 1
        rows = F.concat(rows, F.ones_like(F.slice_axis(rows, axis=1, begin=0, end=1)), dim=1)
        centres = F.concat(centres, F.expand_dims(bias, axis=1), dim=1)
    fixed = F.BlockGrad(rows)
    left = normalised(F, fixed) if form.unit_rows else fixed
    scores = [
        _own_scores(F, left, centres, label * form.group + place, form)
        for place in range(form.group)
    ]
    if form.group == 1:
        (score,) = scores
    else:
        several = F.stack(*scores, axis=1)  # (B, K)
        score, label = F.max(several, axis=1), label * form.group + F.argmax(several, axis=1)
    inputs, attributes = [rows, centres, label, *margin(score)], form.attributes()
    if columns is not None:
        inputs += map(F.BlockGrad, columns(inputs[3], score))
        attributes["columns"] = 1
    return F.face_margin_softmax(*inputs, **attributes)[0], F.BlockGrad(score)


def _own_scores(F: Any, left: Any, centres: Any, label: Any, form: Form) -> Any:
    # Not take(BlockGrad(centres)): it would copy all centres.
    centre = F.BlockGrad(F.take(centres, label, mode="clip"))  # (B, E)
    if form.squares:
        left = left - 0.5 * centre
    return F.sum(left * (normalised(F, centre) if form.unit_columns else centre), axis=1)


def _scores(F: Any, rows: Any, centres: Any, num_classes: int, form: Form, bias: Any) -> Any:
    """Return the scores of all classes, (B, C)."""
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
        # argmax and pick, not max: max passes its gradient to all equally near centres, the fused
        # operator only to the first.
        several = F.reshape(scores, shape=(0, num_classes, form.group))  # (B, C, K)
        scores = F.pick(several, F.argmax(F.BlockGrad(several), axis=2), axis=2)
    return scores


def _plain(
    F: Any, scores: Any, label: Any, num_classes: int, scale: float, margin: Any, columns: Any
) -> tuple[Any, Any]:
    target = F.pick(scores, label, axis=1)  # (B,)
    fixed = F.BlockGrad(target)
    psi, slope = margin(fixed)
    if columns is not None:
        scores = _reweighed(F, scores, *columns(psi, fixed))
    # The difference in brackets is 0: it carries only the gradient, with psi's slope.
    psi = F.BlockGrad(psi) + F.BlockGrad(slope) * (target - fixed)
    place = F.contrib.arange_like(label).astype("int32") * num_classes
    place = place + F.clip(label, 0, num_classes - 1).astype("int32")
    logits = F.contrib.index_copy(F.reshape(scores, shape=(-1,)), place, psi) * scale
    logits = F.reshape_like(logits, scores)
    return -F.pick(F.log_softmax(logits, axis=1), label, axis=1), fixed


def _reweighed(F: Any, scores: Any, threshold: Any, numbers: Any) -> Any:
    """Apply the result of ``columns`` (see `cross_entropy`) to the scores (B, C)."""
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
    """Return the six numbers of ``columns`` in `cross_entropy`, (6,).

    Parameters
    ----------
    value, slope
        Coefficients of a hard class's new score (n0, n1, n2) and of its slope (n3, n4): each a
        number or (1,).
    rest
        Factor n5 on the other scores.
    """
    one = F.ones_like(fraction)
    return F.concat(*[one * number for number in [*value, *slope, rest]], dim=0)


def through_psi(F: Any, loss: Any, quantity: Any, scale: float) -> Any:
    """Add a zero to the loss that carries the gradient of psi with respect to other quantities.

    d loss / d psi = scale (p - 1), where p = exp(-loss) of the cross-entropy.

    Inputs
    ------
    loss : (B,)
        Cross-entropy.
    quantity : (B,)
        Its gradient is the part of psi's gradient that does not pass through the score.
    """
    pull = F.BlockGrad((F.exp(-loss) - 1.0) * scale)
    return loss + pull * (quantity - F.BlockGrad(quantity))
