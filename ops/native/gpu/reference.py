# SPDX-License-Identifier: Apache-2.0
"""Reference implementation of the GPU operators in NumPy and float64.

The code follows the equations literally and stores complete matrices of logits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LENGTH_EPSILON = 1e-10  # added to a squared L2 norm before the square root, as in heads/


class MarginSoftmax(NamedTuple):
    """Outputs and gradients of the margin softmax of B rows, E dimensions and C classes."""

    loss: np.ndarray  # (B,)
    cosine: np.ndarray  # (B,) cosine of the target without margin; 0 if the label is -1
    maximum: np.ndarray  # (B,) largest logit
    total: np.ndarray  # (B,) sum of exp(logit - maximum)
    pull: np.ndarray  # (B, E) gradient of each row's loss with respect to the row's embedding
    # (C,) sum of each class's probabilities over the B rows.  The operator does not return this sum
    # in ``share``, but only an upper bound of it.
    share: np.ndarray
    embedding_gradient: np.ndarray  # (B, E)
    centres_gradient: np.ndarray  # (C, E)


def margin_softmax(
    x: np.ndarray,
    w: np.ndarray,
    label: np.ndarray,
    psi: np.ndarray,
    slope: np.ndarray,
    scale: float,
    gradient: np.ndarray,
) -> MarginSoftmax:
    """Compute the margin softmax, forward and backward, in float64; kernels.h documents the inputs.

    Parameters
    ----------
    gradient
        Gradient with respect to the losses of the B rows, (B,).
    """
    x, w, psi, slope, gradient = (a.astype(np.float64) for a in (x, w, psi, slope, gradient))
    inverse_x = 1 / np.sqrt((x * x).sum(1, keepdims=True) + LENGTH_EPSILON)
    inverse_w = 1 / np.sqrt((w * w).sum(1, keepdims=True) + LENGTH_EPSILON)
    unit_x, unit_w = x * inverse_x, w * inverse_w
    cosines = unit_x @ unit_w.T  # (B, C)
    here = np.flatnonzero(label >= 0)
    target = label[here].astype(int)
    logits = scale * cosines
    logits[here, target] = scale * psi[here]
    maximum = logits.max(1)
    powers = np.exp(logits - maximum[:, None])
    total = powers.sum(1)
    loss = maximum - np.where(label >= 0, scale * psi, 0) + np.log(total)
    cosine = np.zeros(len(x))
    cosine[here] = cosines[here, target]
    p = powers / total[:, None]
    others = p.copy()
    others[here, target] = 0
    d = scale * others  # d loss / d cosine
    d[here, target] = -scale * others[here].sum(1) * slope[here]
    along_x = d @ unit_w
    pull = inverse_x * (along_x - (along_x * unit_x).sum(1, keepdims=True) * unit_x)
    along_w = (d * gradient[:, None]).T @ unit_x
    dw = inverse_w * (along_w - (along_w * unit_w).sum(1, keepdims=True) * unit_w)
    return MarginSoftmax(loss, cosine, maximum, total, pull, p.sum(0), gradient[:, None] * pull, dw)


def step(
    w: np.ndarray,
    velocity: np.ndarray,
    gradient: np.ndarray,
    rate: float,
    momentum: float,
    weight_decay: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the class centres and their velocity after one SGD step, in float64."""
    w = w.astype(np.float64)
    velocity = momentum * velocity - rate * (gradient + weight_decay * w)
    return w + velocity, velocity


def prelu(
    x: np.ndarray, slope: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return PReLU of x, (N, C, P), and the gradients of x and slope, in float64.

    ``dy`` is the gradient with respect to the output.  N counts images, C channels and P pixels.
    """
    x, a, dy = x.astype(np.float64), slope.astype(np.float64)[:, None], dy.astype(np.float64)
    below = x <= 0
    return (
        np.where(below, a * x, x),
        np.where(below, a * dy, dy),
        np.where(below, x * dy, 0).sum((0, 2)),
    )


class BatchNorm(NamedTuple):
    """Outputs and gradients of batch normalisation in training mode.

    N counts images, C channels and P pixels.
    """

    y: np.ndarray  # (N, C, P)
    mean: np.ndarray  # (C,)
    inverse: np.ndarray  # (C,) 1 / sqrt(variance + epsilon)
    running_mean: np.ndarray  # (C,)
    running_variance: np.ndarray  # (C,)
    dx: np.ndarray  # (N, C, P)
    dgamma: np.ndarray  # (C,)
    dbeta: np.ndarray  # (C,)
    dslope: np.ndarray  # (C,) zeros if no PReLU follows


def batch_norm(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    slope: np.ndarray | None,
    running: tuple[np.ndarray, np.ndarray],
    epsilon: float,
    momentum: float,
    dy: np.ndarray,
) -> BatchNorm:
    """Compute batch normalisation of x, (N, C, P), forward and backward, in float64.

    A PReLU follows if ``slope`` is not None.  ``dy`` is the gradient with respect to the output.
    ``running`` holds the running mean and the running variance before this call.
    """
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    axes = (0, 2)
    mean = x.mean(axes)
    variance = x.var(axes)
    inverse = 1 / np.sqrt(variance + epsilon)
    unit = (x - mean[:, None]) * inverse[:, None]
    z = unit * gamma[:, None] + beta[:, None]
    a = 1.0 if slope is None else slope.astype(np.float64)
    y, dz, dslope = prelu(z, np.broadcast_to(a, mean.shape), dy)
    dgamma, dbeta = (dz * unit).sum(axes), dz.sum(axes)
    count = x.shape[0] * x.shape[2]
    less = (dbeta[:, None] + unit * dgamma[:, None]) / count
    old, fresh = momentum, 1 - momentum
    return BatchNorm(
        y,
        mean,
        inverse,
        old * running[0] + fresh * mean,
        old * running[1] + fresh * variance,
        (gamma * inverse)[:, None] * (dz - less),
        dgamma,
        dbeta,
        dslope if slope is not None else np.zeros_like(mean),
    )
