# SPDX-License-Identifier: Apache-2.0
"""Training of the gallery: accuracy, classification rules, and balanced batches."""

from __future__ import annotations

import numpy as np
import pytest

import ops
from tools.digits import Digits
from tools.gallery.settings import LOSSES
from tools.gallery.training import _person_batches, classify, train


def blocks(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 28, 28), each with a bright block at its label's position, and labels."""
    labels = np.arange(count) % 10
    images = np.random.default_rng(seed).integers(0, 60, (count, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels):
        row, column = divmod(int(label), 5)
        image[2 + 12 * row : 14 + 12 * row, 2 + 5 * column : 6 + 5 * column] = 250
    return images, labels.astype(np.int32)


@pytest.mark.parametrize("name", ["arcface", "triplet"])
def test_training_separates_the_classes(name):
    ops.use("auto")
    digits = Digits(*blocks(1000, seed=1), *blocks(500, seed=2))
    outcome = train(name, LOSSES[name], digits, epochs=4, seed=1)
    assert outcome.test_accuracy > 0.7 and outcome.train_accuracy > 0.7
    assert outcome.test_embeddings.shape == (500, 2)


def test_each_rule_classifies_as_documented():
    weight = np.array([[1.0, 0.0], [0.0, 2.0], *[[-1.0, -1.0]] * 8])
    points = np.array([[2.0, 1.5], [0.5, 0.2]])
    means = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    assert classify("product", points, {"weight": weight}, means).tolist() == [1, 0]
    bias = np.array([0.0, 1.0] + [0.0] * 8)
    found = classify("product", points, {"weight": weight, "bias": bias}, means)
    assert found.tolist() == [1, 1]
    assert classify("cosine", points, {"weight": weight}, means).tolist() == [0, 0]
    assert classify("mean cosine", points, {}, means).tolist() == [0, 0]
    assert classify("distance", np.array([[0.2, 1.5]]), {"weight": weight}, means).tolist() == [1]
    # With two centres per class, in adjacent rows, the nearer one counts.
    doubled = np.repeat(weight, 2, axis=0)
    doubled[1] = [2.0, 1.5]
    assert classify("cosine", points[:1], {"weight": doubled}, means).tolist() == [0]


def test_person_batches_have_equally_many_images_per_digit():
    labels = np.random.default_rng(1).integers(0, 10, 500)
    batches = list(_person_batches(labels, 40, 1000, np.random.default_rng(2)))
    assert len(batches) == 25
    for batch in batches:
        assert np.bincount(labels[batch], minlength=10).tolist() == [4] * 10
    seen = np.bincount(np.concatenate(batches), minlength=500)
    for n in range(10):  # the last pass over the images of a digit may be incomplete
        assert np.ptp(seen[labels == n]) <= 1
