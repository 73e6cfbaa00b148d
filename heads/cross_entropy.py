# SPDX-License-Identifier: Apache-2.0
"""Softmax cross-entropy over all classes, by the fused operator or in plain Gluon.

The one place where heads with class centres choose between the two.  The fused operator walks over
the classes and never builds the (B, C) matrix of logits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import ops

# Added to a squared length before the root, so that a vector of zeros has a finite gradient.
LENGTH_EPSILON = 1e-10


def normalised(F, rows):
    """Bring rows to length 1; a row of zeros stays one, with a finite gradient."""
    return F.L2Normalization(rows, mode="instance", eps=LENGTH_EPSILON)


def length(F, rows):
    """Return the length of each row, (B,) from (B, E)."""
    return F.sqrt(F.sum(F.square(rows), axis=1) + LENGTH_EPSILON)


class Form(NamedTuple):
    """What the score of a class is: the product of embedding and centre, and what is done to it."""

    scale: float = 1.0
    """Factor on the scores, which makes them the logits of the softmax."""
    unit_rows: bool = True
    unit_columns: bool = True
    """Whether embeddings and centres are normalised."""
    group: int = 1
    """Centres of each class K, side by side: the nearest one counts."""
    squares: bool = False
    """Whether |centre|^2 / 2 is taken off, of inner products alone: the score is then |x|^2 / 2
    less half of the squared distance."""

    def settings(self) -> dict[str, float]:
        """Return the attributes of the operator; those that hold for most are left out."""
        standard = Form()._asdict()
        others = {
            key: int(value) for key, value in self._asdict().items() if value != standard[key]
        }
        return others | {"scale": self.scale}


def cross_entropy(
    F,
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
    """Return the loss per image and the target's score.

    Parameters
    ----------
    margin
        Gives psi and its slope, (B,) each, for the target's score, through which no gradient
        flows: psi stands in the score's place.
    columns
        Gives for psi and the target's score, (B,) each, a threshold (B,) and six numbers (6,): a
        score c of another class that is above the threshold becomes (n0 c + n1) c + n2, with
        n3 c + n4 as its slope; n5 c below.

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
    In float32 the plain form takes MXNet's log_softmax, which oneDNN computes to about 4e-6: a loss
    of 0.035680 comes out as 0.035683. Without oneDNN and in the native form it is 3e-7. Harmless.
    """
    margin = margin or (lambda score: (score, F.ones_like(score)))
    simple = form._replace(scale=1.0) == Form() and columns is None
    if not (ops.fused() if simple else ops.fused_scores()):
        scores = _scores(F, rows, centres, num_classes, form, bias)
        return _plain(F, scores, label, num_classes, form.scale, margin, columns)
    label = F.cast(label, dtype=dtype)  # exact up to 2**24 classes
    if bias is not None:  # one more dimension, in which every row is 1
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
    inputs, settings = [rows, centres, label, *margin(score)], form.settings()
    if columns is not None:
        inputs += map(F.BlockGrad, columns(inputs[3], score))
        settings["columns"] = 1
    return F.face_margin_softmax(*inputs, **settings)[0], F.BlockGrad(score)


def _own_scores(F, left, centres, label, form):
    # Not take(BlockGrad(centres)): that would copy all centres.
    centre = F.BlockGrad(F.take(centres, label, mode="clip"))  # (B, E)
    if form.squares:
        left = left - 0.5 * centre
    return F.sum(left * (normalised(F, centre) if form.unit_columns else centre), axis=1)


def _scores(F, rows, centres, num_classes, form, bias):
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
        # argmax and pick, not max: of centres that are equally near, max would give the whole
        # gradient to each; so the first alone has it, as in the fused operator.
        several = F.reshape(scores, shape=(0, num_classes, form.group))  # (B, C, K)
        scores = F.pick(several, F.argmax(F.BlockGrad(several), axis=2), axis=2)
    return scores


def _plain(F, scores, label, num_classes, scale, margin, columns):
    target = F.pick(scores, label, axis=1)  # (B,)
    fixed = F.BlockGrad(target)
    psi, slope = margin(fixed)
    if columns is not None:
        scores = _reweighed(F, scores, *columns(psi, fixed))
    # psi takes the place of the true score, and its slope goes with it: the bracket is 0.
    psi = F.BlockGrad(psi) + F.BlockGrad(slope) * (target - fixed)
    place = F.contrib.arange_like(label).astype("int32") * num_classes
    place = place + F.clip(label, 0, num_classes - 1).astype("int32")
    logits = F.contrib.index_copy(F.reshape(scores, shape=(-1,)), place, psi) * scale
    logits = F.reshape_like(logits, scores)
    return -F.pick(F.log_softmax(logits, axis=1), label, axis=1), fixed


def _reweighed(F, scores, threshold, numbers):
    """Return the scores (B, C) of other classes as ``columns`` of `cross_entropy` says."""
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


def column_numbers(F, fraction, value, slope, rest):
    """Return the six numbers of ``columns`` in `cross_entropy`, (6,).

    Parameters
    ----------
    value, slope
        Coefficients of a hard class's new score, that of the square first, and of its slope: each
        a number or (1,).
    rest
        Factor on the other scores.
    """
    one = F.ones_like(fraction)
    return F.concat(*[one * number for number in [*value, *slope, rest]], dim=0)


def through_psi(F, loss, quantity, scale):
    """Carry the gradient of psi on to what else it depends on.

    d loss / d psi = scale (p - 1), and p = exp(-loss) of the cross-entropy.  What is added is 0.

    Inputs
    ------
    loss : (B,)
        The cross-entropy.
    quantity : (B,)
        With the gradient that psi has beside that of the target's score.
    """
    pull = F.BlockGrad((F.exp(-loss) - 1.0) * scale)
    return loss + pull * (quantity - F.BlockGrad(quantity))
