# SPDX-License-Identifier: Apache-2.0
"""Oracle of every loss: float64 NumPy from the papers' equations, one image at a time.

An oracle is called as ``oracle(now, held, label, w, **settings)`` and returns the loss per image
(B,).  ``now`` is the point of evaluation. Quantities without a gradient in the paper
(AdaFace's quality, circle's weights, indicators, mined pairs) are computed from ``held``, so that
finite differences in ``now`` equal the gradient.  ``w`` is the margin fraction.  Keyword
arguments and their defaults are the settings of the head.

The oracle reads states from ``now``; BEFORE and AFTER return their next values in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Point:
    """Embedding, parameters and states: all inputs of a loss except the labels."""

    x: np.ndarray  # (B, E)
    weight: np.ndarray | None = None  # (C, E), sub_center_arcface (C * K, E)
    bias: np.ndarray | None = None  # (C,)
    radius: np.ndarray | None = None  # (1,), ring
    centers: np.ndarray | None = None  # (C, E), center, git
    t: np.ndarray | None = None  # (1,), curricularface
    scale: np.ndarray | None = None  # (1,), adacos
    lengths: np.ndarray | None = None  # (2,) mean and deviation, adaface


# Parts


def length(v):
    return math.sqrt((v**2).sum() + 1e-10)


def unit(rows):
    return np.array([row / length(row) for row in rows])


def cosines(point):
    return unit(point.x) @ unit(point.weight).T


def angle_of(cosine):
    return math.acos(max(-1.0, min(1.0, cosine)))


def cross_entropy(logits, label):
    losses = []
    for row, y in zip(logits, label):
        top = row.max()
        losses.append(top + math.log(np.exp(row - top).sum()) - row[y])
    return np.array(losses)


def linear(x, point):
    return x @ point.weight.T + (0 if point.bias is None else point.bias)


def folded(angle):
    """Return the cosine, continued below -1 past pi; SphereFace equation 7."""
    k = math.floor(angle / math.pi)
    return (-1) ** k * math.cos(angle) - 2 * k


def arc(cosine, m2, easy=False):
    """Return cos(t + m2) with the guard past pi - m2."""
    angle = angle_of(cosine)
    if easy:
        return math.cos(angle + m2) if cosine > 0 else cosine
    return math.cos(angle + m2) if angle <= math.pi - m2 else cosine - m2 * math.sin(m2)


def combined_psi(cosine, m1, m2, m3):
    if m1 == 1:
        return arc(cosine, m2) - m3
    return folded(m1 * angle_of(cosine) + m2) - m3


def part_of(w, cosine, psi):
    """Return the score of the true class with the margin fraction w."""
    return cosine + w * (psi - cosine)


def margin_softmax(now, label, w, scale, psi_of):
    """Return the softmax loss of the scaled cosines, with psi_of(image, cosine) for class y."""
    logits = cosines(now)
    for i, y in enumerate(label):
        logits[i, y] = part_of(w, logits[i, y], psi_of(i, logits[i, y]))
    return cross_entropy(scale * logits, label)


# Classification


def softmax(now, held, label, w, *, use_bias=False):
    return cross_entropy(linear(now.x, now), label)


def l2_softmax(now, held, label, w, *, scale=0.0, use_bias=False):
    scale = scale or math.log(0.9 * (len(now.weight) - 2) / 0.1)
    return cross_entropy(linear(scale * unit(now.x), now), label)


def normface(now, held, label, w, *, scale=64.0):
    return cross_entropy(scale * cosines(now), label)


def sphereface(now, held, label, w, *, m1=1.35, scale=64.0):
    return margin_softmax(now, label, w, scale, lambda i, c: folded(m1 * angle_of(c)))


def a_softmax(now, held, label, w, *, m1=4, lambda_min=5.0):
    logits = cosines(now)
    for i, y in enumerate(label):
        c = logits[i, y]
        logits[i, y] = c + w / (1 + lambda_min) * (folded(m1 * angle_of(c)) - c)
        logits[i] *= length(now.x[i])
    return cross_entropy(logits, label)


def cosface(now, held, label, w, *, m3=0.35, scale=64.0):
    return margin_softmax(now, label, w, scale, lambda i, c: c - m3)


def arcface(now, held, label, w, *, m2=0.5, scale=64.0, easy_margin=False):
    return margin_softmax(now, label, w, scale, lambda i, c: arc(c, m2, easy_margin))


def combined(now, held, label, w, *, m1=1.0, m2=0.3, m3=0.2, scale=64.0):
    return margin_softmax(now, label, w, scale, lambda i, c: combined_psi(c, m1, m2, m3))


def sv_softmax(
    now, held, label, w, *, t=1.2, m1=1.0, m2=0.0, m3=0.35, scale=64.0, easy_margin=False
):
    def psi(c):
        return c if easy_margin and c <= 0 else combined_psi(c, m1, m2, m3)

    logits, before = cosines(now), cosines(held)
    for i, y in enumerate(label):
        logits[i, y] = part_of(w, logits[i, y], psi(logits[i, y]))
        limit = psi(before[i, y])
        if easy_margin:  # hard ones are told by the margin without it, and without a guard
            total = m1 * angle_of(before[i, y]) + m2
            limit = (math.cos(total) if m1 == 1 else folded(total)) - m3
        limit = part_of(w, before[i, y], limit)
        for j in range(len(logits[i])):
            if j != y and before[i, j] > limit:
                logits[i, j] += w * (t - 1) * (logits[i, j] + 1)
    return cross_entropy(scale * logits, label)


def sub_center_cosines(point, sub_centers):
    every = cosines(point)
    return every.reshape(len(every), -1, sub_centers).max(axis=2)


def sub_center_arcface(
    now, held, label, w, *, sub_centers=3, m2=0.5, scale=64.0, easy_margin=False
):
    logits = sub_center_cosines(now, sub_centers)
    for i, y in enumerate(label):
        logits[i, y] = part_of(w, logits[i, y], arc(logits[i, y], m2, easy_margin))
    return cross_entropy(scale * logits, label)


def curricularface(
    now, held, label, w, *, m2=0.5, scale=64.0, momentum=0.01, guarded_threshold=True
):
    logits, before = cosines(now), cosines(held)
    t = now.t[0]
    for i, y in enumerate(label):
        logits[i, y] = part_of(w, logits[i, y], arc(logits[i, y], m2))
        limit = arc(before[i, y], m2)
        if not guarded_threshold:
            limit = math.cos(angle_of(before[i, y]) + m2)
        limit = part_of(w, before[i, y], limit)
        for j in range(len(logits[i])):
            if j != y and before[i, j] > limit:
                c = logits[i, j]
                logits[i, j] = c + w * (c * (t + c) - c)
    return cross_entropy(scale * logits, label)


def adacos(now, held, label, w):
    return cross_entropy(now.scale[0] * cosines(now), label)


def adaface(now, held, label, w, *, m=0.4, h=0.333, momentum=0.01, scale=64.0):
    mean, deviation = now.lengths
    lengths = np.clip([length(x) for x in held.x], 1e-3, 100)
    quality = np.clip((lengths - mean) / (deviation + 1e-3) * h, -1, 1)

    def psi(i, c):
        angle = min(max(angle_of(c) - m * quality[i], 1e-3), math.pi - 1e-3)
        return math.cos(angle) - (m + m * quality[i])

    return margin_softmax(now, label, w, scale, psi)


def magface(
    now,
    held,
    label,
    w,
    *,
    low=10.0,
    high=110.0,
    least=0.45,
    most=0.8,
    length_weight=35.0,
    scale=64.0,
    easy_margin=False,
):
    a = np.clip([length(x) for x in now.x], low, high)
    m = least + (most - least) / (high - low) * (a - low)
    loss = margin_softmax(now, label, w, scale, lambda i, c: arc(c, m[i], easy_margin))
    return loss + length_weight * (a / high**2 + 1 / a)


def elasticface(
    now, held, label, w, *, m2=0.5, sigma=0.05, plus=False, by_argsort=False, scale=64.0
):
    assert sigma == 0, "with a deviation the margins are drawn: see test_image_margins.py"
    return arcface(now, held, label, w, m2=m2, scale=scale)


def circle(now, held, label, w, *, m=0.25, scale=256.0):
    logits, before = cosines(now), cosines(held)
    for i, y in enumerate(label):
        for j in range(len(logits[i])):
            if j == y:
                logits[i, j] = max(0, 1 + m - before[i, j]) * (logits[i, j] - (1 - m))
            else:
                logits[i, j] = max(0, before[i, j] + m) * (logits[i, j] - m)
    return cross_entropy(scale * logits, label)


# Joint


def intra(now, held, label, w, *, intra_weight=1.0, m2=0.5, scale=64.0, easy_margin=False):
    angles = np.array([angle_of(row[y]) for row, y in zip(cosines(now), label)])
    loss = arcface(now, held, label, w, m2=m2, scale=scale, easy_margin=easy_margin)
    return loss + intra_weight * angles / math.pi


def inter(now, held, label, w, *, inter_weight=1.0, m2=0.5, scale=64.0, easy_margin=False):
    loss = arcface(now, held, label, w, m2=m2, scale=scale, easy_margin=easy_margin)
    between = unit(now.weight) @ unit(now.weight).T
    classes = len(between)
    for i, y in enumerate(label):
        total = sum(angle_of(between[y, j]) for j in range(classes) if j != y)
        loss[i] -= inter_weight / (math.pi * (classes - 1)) * total
    return loss


def coco(now, held, label, w, *, scale=0.0):
    return normface(now, held, label, w, scale=scale or 0.5 * math.log(len(now.weight) - 1) + 3)


def center(now, held, label, w, *, center_weight=0.003, center_rate=0.5, use_bias=False):
    return softmax(now, held, label, w) + np.array(
        [center_weight / 2 * ((x - now.centers[y]) ** 2).sum() for x, y in zip(now.x, label)]
    )


def git(
    now, held, label, w, *, center_weight=0.003, git_weight=0.003, center_rate=0.5, use_bias=False
):
    loss = center(now, held, label, w, center_weight=center_weight)
    for i in range(len(label)):
        for j in range(len(label)):
            if label[j] != label[i]:
                far = ((now.x[i] - now.centers[label[j]]) ** 2).sum()
                loss[i] += git_weight / len(label) / (1 + far)
    return loss


def ring(now, held, label, w, *, ring_weight=0.01, radius=20.0, use_bias=False):
    lengths = np.array([length(x) for x in now.x])
    return softmax(now, held, label, w) + ring_weight / 2 * (lengths - now.radius[0]) ** 2


def lgm(now, held, label, w, *, alpha=0.1, likelihood_weight=0.1):
    d = np.array([[((x - c) ** 2).sum() / 2 for c in now.weight] for x in now.x])
    logits, own = -d, d[np.arange(len(label)), label]
    logits[np.arange(len(label)), label] = -(1 + alpha * w) * own
    return cross_entropy(logits, label) + likelihood_weight * own


def range_loss(
    now,
    held,
    label,
    w,
    *,
    intra_weight=5e-5,
    inter_weight=1e-4,
    largest=2,
    margin=2e4,
    use_bias=False,
):
    within, means = 0.0, []
    for person in sorted(set(label.tolist())):
        images = now.x[label == person]
        means.append(images.mean(axis=0))
        far = sorted(
            (((images[i] - images[j]) ** 2).sum() for i in range(len(images)) for j in range(i)),
            reverse=True,
        )[:largest]
        if far:  # the harmonic mean of the largest ones
            within += len(far) / sum(1 / d for d in far)
    near = [((a - b) ** 2).sum() for i, a in enumerate(means) for b in means[:i]]
    between = max(0, margin - min(near)) if near else 0.0
    return softmax(now, held, label, w) + intra_weight * within + inter_weight * between


def marginal(now, held, label, w, *, marginal_weight=1.0, theta=1.2, xi=0.3, use_bias=False):
    loss, x = softmax(now, held, label, w), unit(now.x)
    for i in range(len(label)):
        terms = []
        for j in range(len(label)):
            if j != i:
                s = 1 if label[i] == label[j] else -1
                terms.append(max(0, xi - s * (theta - ((x[i] - x[j]) ** 2).sum())))
        loss[i] += marginal_weight * np.mean(terms) if terms else 0
    return loss


# Pairs and triplets


def positives_of(i, label):
    return [p for p in range(len(label)) if p != i and label[p] == label[i]]


def negatives_of(i, label):
    return [n for n in range(len(label)) if label[n] != label[i]]


def contrastive(now, held, label, w, *, margin=1.0):
    x, losses = unit(now.x), np.zeros(len(label))
    for i in range(len(label)):
        for j in range(len(label)):
            if j != i:
                d = length(x[i] - x[j])
                term = d**2 if label[i] == label[j] else max(0, w * margin - d) ** 2
                losses[i] += term / 2 / (len(label) - 1)
    return losses


def mined(distance, label, mining):
    """Yield triplets (anchor, positive, negative) from all distances (B, B)."""
    found = []
    for a in range(len(label)):
        positives, negatives = positives_of(a, label), negatives_of(a, label)
        if not positives or not negatives:
            continue
        nearest = min(negatives, key=lambda n: distance[a, n])
        farthest = max(negatives, key=lambda n: distance[a, n])
        if mining == "hard":
            found.append((a, max(positives, key=lambda p: distance[a, p]), nearest))
        else:
            for p in positives:
                beyond = [n for n in negatives if distance[a, n] > distance[a, p]]
                n = min(beyond, key=lambda n: distance[a, n]) if beyond else farthest
                found.append((a, p, n))
    return found


def triplets(now, held, label, margin, mining, distances):
    losses, size = np.zeros(len(label)), len(label) // 3
    if mining == "blocks":
        d = distances(unit(now.x))
        for i in range(size):
            losses[i] = 3 * max(0, d[i, size + i] - d[i, 2 * size + i] + margin)
        return losses
    chosen = mined(distances(unit(held.x)), label, mining)
    d = distances(unit(now.x))
    for i in range(len(label)):
        terms = [max(0, d[a, p] - d[a, n] + margin) for a, p, n in chosen if a == i]
        losses[i] = np.mean(terms) if terms else 0
    return losses


def squared(x):
    return np.array([[((a - b) ** 2).sum() for b in x] for a in x])


def angles(x):
    return np.array([[angle_of((a * b).sum()) for b in x] for a in x])


def triplet(now, held, label, w, *, margin=0.3, mining="semi_hard"):
    return triplets(now, held, label, w * margin, mining, squared)


def angular_triplet(now, held, label, w, *, margin=0.35, mining="semi_hard"):
    return triplets(now, held, label, w * margin, mining, angles)


def n_pair(now, held, label, w, *, length_weight=0.002):
    x, losses = now.x, np.zeros(len(label))
    for i in range(len(label)):
        terms = [
            np.logaddexp.reduce([0.0, *(x[i] @ x[n] - x[i] @ x[p] for n in negatives_of(i, label))])
            for p in positives_of(i, label)
        ]
        if terms:
            losses[i] = np.mean(terms) + length_weight * (x[i] ** 2).sum()
    return losses


def mps(now, held, label, w, *, margin=0.5):
    c, losses = unit(now.x) @ unit(now.x).T, np.zeros(len(label))
    for i in range(len(label)):
        positives, negatives = positives_of(i, label), negatives_of(i, label)
        if positives and negatives:
            worst = {k: max(c[k, n] for n in negatives) for k in (i, *positives)}
            short = [max(worst[i], worst[p]) - c[i, p] + w * margin for p in positives]
            losses[i] = np.mean(np.maximum(0, short))
    return losses


# States, from the images of all ranks


def next_t(point, label, *, momentum=0.01, **_):
    mean = np.mean([row[y] for row, y in zip(cosines(point), label)])
    return {"t": (1 - momentum) * point.t + momentum * mean}


def next_scale(point, label):
    c = cosines(point)
    others = [
        sum(math.exp(point.scale[0] * row[j]) for j in range(len(row)) if j != y)
        for row, y in zip(c, label)
    ]
    median = np.median([angle_of(row[y]) for row, y in zip(c, label)])
    return {"scale": np.array([math.log(np.mean(others)) / math.cos(min(math.pi / 4, median))])}


def next_lengths(point, label, *, momentum=0.01, **_):
    lengths = np.clip([length(x) for x in point.x], 1e-3, 100)
    new = np.array([lengths.mean(), lengths.std()])
    return {"lengths": (1 - momentum) * point.lengths + momentum * new}


def next_centers(point, label, *, center_rate=0.5, **_):
    centers = point.centers.copy()
    for j, m in enumerate(point.centers):
        own = point.x[label == j]
        centers[j] -= center_rate * sum(m - x for x in own) / (1 + len(own))
    return {"centers": centers}


def first_state(name, classes, size):
    """Return the states before the first step."""
    return {
        "curricularface": {"t": np.zeros(1)},
        "adacos": {"scale": np.array([math.sqrt(2) * math.log(classes - 1)])},
        "adaface": {"lengths": np.array([20.0, 100.0])},
        "center": {"centers": np.zeros((classes, size))},
        "git": {"centers": np.zeros((classes, size))},
    }.get(name, {})


BEFORE = {"curricularface": next_t, "adacos": next_scale, "adaface": next_lengths}
"""The loss of a training step uses the state after the update of that step."""
AFTER = {"center": next_centers, "git": next_centers}
"""The loss of a training step uses the state before the update of that step."""

PAIRS = {
    "contrastive": contrastive,
    "triplet": triplet,
    "angular_triplet": angular_triplet,
    "n_pair": n_pair,
    "mps": mps,
}
"""Losses without a class matrix, local to a rank."""
LOSSES = {
    "softmax": softmax,
    "l2_softmax": l2_softmax,
    "normface": normface,
    "sphereface": sphereface,
    "a_softmax": a_softmax,
    "cosface": cosface,
    "arcface": arcface,
    "combined": combined,
    "sv_softmax": sv_softmax,
    "sub_center_arcface": sub_center_arcface,
    "curricularface": curricularface,
    "adacos": adacos,
    "adaface": adaface,
    "magface": magface,
    "elasticface": elasticface,
    "circle": circle,
    "intra": intra,
    "inter": inter,
    "coco": coco,
    "center": center,
    "git": git,
    "ring": ring,
    "lgm": lgm,
    "range": range_loss,
    "marginal": marginal,
    **PAIRS,
}


def target_cosine(name, point, label, *, sub_centers=3, **_):
    """Return the target cosine that a head returns with the loss, (B,)."""
    if name in PAIRS:
        c = unit(point.x) @ unit(point.x).T
        own = [c[i, positives_of(i, label)] for i in range(len(label))]
        return np.array([row.mean() if len(row) else 0.0 for row in own])
    if name == "sub_center_arcface":
        return sub_center_cosines(point, sub_centers)[np.arange(len(label)), label]
    return cosines(point)[np.arange(len(label)), label]


def numeric_gradient(function, array, step=1e-6):
    """Return finite differences of a function while this changes the array in place."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(*array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function()
        array[index] = kept - step
        below = function()
        array[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient
