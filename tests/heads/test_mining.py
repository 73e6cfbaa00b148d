# SPDX-License-Identifier: Apache-2.0
"""Compares mined pairs and triplets with an exhaustive search."""

from __future__ import annotations

import mxnet as mx
import numpy as np

from heads import mining


def test_mined_triplets_equal_an_exhaustive_search():
    random = np.random.RandomState(5)
    label = random.randint(0, 12, 60)
    distance = random.rand(60, 60)
    distance[:, 7] = distance[:, 8]  # the same image twice
    positive, negative = mining.pairs(mx.nd, mx.nd.array(label))
    given = mx.nd.array(distance)
    beyond = mining.semi_hard(mx.nd, given, positive, negative).asnumpy()
    near, far = (a.asnumpy() for a in mining.hardest(mx.nd, given, positive, negative))
    distance, fallbacks = distance.astype("f4"), 0
    for i in range(60):
        others = distance[i, label != label[i]]
        own = [j for j in range(60) if label[j] == label[i] and j != i]
        assert (positive.asnumpy()[i].nonzero()[0] == own).all()
        assert far[i] == others.min()
        assert not own or near[i] == distance[i, own].max()
        for p in own:
            after = others[others > distance[i, p]]
            fallbacks += not len(after)
            assert beyond[i, p] == (after.min() if len(after) else others.max())
    assert fallbacks > 2


def test_means_and_distances():
    values, chosen = mx.nd.array([[1, 2, 3], [4, 5, 6]]), mx.nd.array([[1, 0, 1], [0, 0, 0]])
    assert mining.mean_over(mx.nd, values, chosen).asnumpy().tolist() == [2, 0]
    selected = mining.select(mx.nd, values, chosen, -1.0).asnumpy().tolist()
    assert selected == [[1, -1, 3], [-1, -1, -1]]
    rows = mx.nd.array([[0, 0], [3, 4]])
    products = mx.nd.dot(rows, rows, transpose_b=True)
    for known in (None, products):
        found = mining.squared_distances(mx.nd, rows, known).asnumpy().tolist()
        assert found == [[0, 25], [25, 0]]
