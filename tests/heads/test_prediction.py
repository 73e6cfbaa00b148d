# SPDX-License-Identifier: Apache-2.0
"""Predicted class: the class with the largest logit without margin, for every loss."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from heads import HEADS, build_head, prediction
from heads.prediction import nearest_centre

CLASSES, EMBEDDING, BATCH = 23, 8, 40


def arrays(rows, seed=0):
    generator = np.random.default_rng(seed)
    # Centres of different lengths tell cosines, inner products and distances apart.
    centres = generator.normal(size=(rows, EMBEDDING)) * generator.uniform(0.2, 3, (rows, 1))
    return generator.normal(size=(BATCH, EMBEDDING)), centres


def by_hand(name, embedding, centres, head):
    unit = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    if name in SOFTMAX:
        rows = embedding
        if name == "l2_softmax":
            rows = head._scale * embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        return (rows @ centres.T).argmax(1)
    if name == "lgm":
        return ((embedding[:, None] - centres) ** 2).sum(2).argmin(1)
    if name == "sub_center_arcface":
        return (embedding @ unit.T).reshape(BATCH, CLASSES, 3).max(2).argmax(1)
    return (embedding @ unit.T).argmax(1)


SOFTMAX = ("softmax", "l2_softmax", "center", "git", "marginal", "range", "ring")


@pytest.mark.parametrize("name", HEADS)
def test_the_prediction_is_the_class_with_the_largest_logit(name, monkeypatch):
    monkeypatch.setattr(prediction, "BLOCK_CENTRES", 7)
    head = build_head(name, CLASSES, EMBEDDING)
    head.initialize()
    if "weight" not in head._collect_params_with_prefix():
        assert head.predict(mx.nd.ones((BATCH, EMBEDDING))) is None  # losses on pairs
        return
    embedding, centres = arrays(head.weight.shape[0])
    head.weight.set_data(mx.nd.array(centres))
    found = head.predict(mx.nd.array(embedding)).asnumpy()
    assert found.tolist() == by_hand(name, embedding, centres, head).tolist()


def test_a_bias_counts():
    head = build_head("softmax", CLASSES, EMBEDDING, use_bias=True)
    head.initialize()
    embedding, centres = arrays(CLASSES)
    bias = np.random.default_rng(1).normal(size=CLASSES) * 3
    head.weight.set_data(mx.nd.array(centres))
    head.bias.set_data(mx.nd.array(bias))
    found = head.predict(mx.nd.array(embedding)).asnumpy()
    assert found.tolist() == (embedding @ centres.T + bias).argmax(1).tolist()


def test_blocks_of_centres_do_not_change_the_result(monkeypatch):
    embedding, centres = map(mx.nd.array, arrays(50))
    whole = nearest_centre(embedding, centres).asnumpy()
    for block in (1, 16, 50):
        monkeypatch.setattr(prediction, "BLOCK_CENTRES", block)
        assert (nearest_centre(embedding, centres).asnumpy() == whole).all()


def test_of_equal_scores_the_first_class_wins(monkeypatch):
    monkeypatch.setattr(prediction, "BLOCK_CENTRES", 2)
    embedding = mx.nd.ones((1, 4))
    assert nearest_centre(embedding, mx.nd.ones((5, 4))).asnumpy().tolist() == [0]
