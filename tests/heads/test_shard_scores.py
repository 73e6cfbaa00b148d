# SPDX-License-Identifier: Apache-2.0
"""Scores and gradients of several shards together equal those of all classes."""

from __future__ import annotations

from itertools import pairwise

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from heads.cross_entropy import Form, column_numbers, cross_entropy
from heads.shard_scores import NoScores, Targets, shard_scores, target_scores

NUM_CLASSES, EMBEDDING_SIZE = 10, 5
LABELS = np.array([0, 9, 4, 4, 6, 1])
FORMS = {
    "cosines": Form(8.0),
    "products": Form(unit_rows=False, unit_columns=False),
    "several centres": Form(8.0, group=3),
}


def margin(score):
    return score - 0.3 + 0.1 * score, mx.nd.ones_like(score) * 1.1


def columns(psi, score):
    one = mx.nd.ones((1,))
    return psi - 0.5, column_numbers(mx.nd, one, [0.4, 0.7, 0.1], [0.8, 0.7], 1.0)


def complete(rows, centres, form, changed):
    """Return losses and gradients of a softmax over all classes."""
    for array in (rows, centres):
        array.attach_grad()
    with autograd.record():
        loss, _ = cross_entropy(
            mx.nd,
            rows,
            centres,
            mx.nd.array(LABELS),
            num_classes=NUM_CLASSES,
            form=form,
            margin=margin,
            columns=columns if changed else None,
        )
    loss.backward()
    return loss.asnumpy(), rows.grad.asnumpy(), centres.grad.asnumpy()


def in_shards(rows, centres, form, changed, bounds):
    """Return the same, computed shard by shard; ``bounds`` are their first classes and the end."""
    shards, found = [], []
    for start, stop in pairwise(bounds):
        inside = (start <= LABELS) & (stop > LABELS)
        label = mx.nd.array(np.where(inside, LABELS - start, -1))
        own = centres[start * form.group : stop * form.group]
        found.append((label, own, *target_scores(rows, own, label, form)))
    score = sum(part[2] for part in found)
    psi, slope = margin(score)
    for label, own, own_score, row in found:
        changes = columns(psi, score) if changed else None
        targets = Targets(label, row, own_score, psi, slope, changes)
        shards.append(shard_scores(rows, own, targets, form))
    maximum = mx.nd.max(mx.nd.stack(*[s.maximum for s in shards]), axis=0)
    total = sum(s.total * mx.nd.exp(s.maximum - maximum) for s in shards)
    loss = maximum - form.scale * psi + mx.nd.log(total)
    pull = sum(s.finish(maximum, total) for s in shards)
    gradients = []
    for (_, own, *_), each in zip(found, shards, strict=True):
        gradients.append(mx.nd.zeros_like(own))
        each.centre_gradient(gradients[-1])
    return loss.asnumpy(), pull.asnumpy(), mx.nd.concat(*gradients, dim=0).asnumpy()


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_shards_together_equal_all_classes(form, changed, operators):
    random = np.random.default_rng(1)
    rows = mx.nd.array(random.normal(size=(len(LABELS), EMBEDDING_SIZE)))
    centres = mx.nd.array(random.normal(size=(NUM_CLASSES * form.group, EMBEDDING_SIZE)))
    expected = complete(rows, centres, form, changed)
    for bounds in ([0, 10], [0, 7, 10], [0, 2, 4, 10]):  # the second of three has no target
        found = in_shards(rows, centres, form, changed, bounds)
        for one, other in zip(found, expected, strict=True):
            assert abs(one - other).max() <= 2e-6 * abs(other).max() + 2e-6
    assert abs(expected[2]).max() > 0.1


def test_a_shard_without_classes_adds_nothing():
    rows = mx.nd.ones((2, 3))
    scores = NoScores(rows)
    assert (scores.total.asnumpy() == 0).all() and (scores.maximum.asnumpy() < -1e29).all()
    assert not scores.finish(mx.nd.zeros((2,)), mx.nd.ones((2,))).asnumpy().any()
    gradient = mx.nd.ones((1, 3))
    scores.centre_gradient(gradient)
    assert not gradient.asnumpy().any()
