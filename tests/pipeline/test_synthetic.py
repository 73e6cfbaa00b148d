# SPDX-License-Identifier: Apache-2.0
"""Synthetic loader: one batch with advancing positions."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from pipeline import build_loader
from pipeline.loader import SYNTHETIC_STEPS
from pipeline.records import open_records
from pipeline.sampling.batches import Share
from pipeline.sampling.epoch_orders import Position
from pipeline.synthetic import synthetic_batch

PEOPLE, IMAGES = 13, 10


@pytest.fixture(scope="module")
def records(make_records, tmp_path_factory):
    return open_records(make_records(PEOPLE, IMAGES), tmp_path_factory.mktemp("scan"))


def take(count, records, batch_size, **options):
    loader = build_loader("synthetic", records, batch_size, **options)
    batches = list(islice(loader, count))
    loader.close()
    images = np.stack([batch.image.asnumpy() for batch in batches])
    labels = np.stack([batch.label.asnumpy() for batch in batches])
    return images, labels, [batch.after for batch in batches], loader.images_per_epoch


def test_images_and_labels_depend_on_the_seed():
    image, label = synthetic_batch(64, 5, (20, 12), seed=3)
    assert image.shape == (64, 3, 20, 12) and image.dtype == label.dtype == np.float32
    assert -1 <= image.min() < -0.99 and 0.99 < image.max() < 1
    assert set(label) == set(range(5))
    assert (synthetic_batch(64, 5, (20, 12), seed=3)[0] == image).all()
    assert (synthetic_batch(64, 5, (20, 12), seed=4)[0] != image).any()


def test_the_same_batch_advances_through_the_epochs_of_the_set(records):
    images, labels, after, per_epoch = take(9, records, 16)
    assert images.shape == (9, 16, 3, 112, 112) and per_epoch == PEOPLE * IMAGES
    assert (images == images[0]).all() and (labels == labels[0]).all()
    assert set(labels[0]) <= set(range(PEOPLE))
    assert after == [Position(0, 16 * i) for i in range(1, 9)] + [Position(1, 16)]
    other, *_ = take(1, records, 16, share=Share(1, 2))
    assert not (other[0] == images[0]).any()


def test_no_records_are_needed():
    images, labels, _, per_epoch = take(1, None, 4, num_classes=7, image_size=(32, 24))
    assert per_epoch == SYNTHETIC_STEPS * 4
    assert images.shape == (1, 4, 3, 32, 24) and labels.max() < 7


def test_an_epoch_has_at_least_one_batch(records):
    *_, after, per_epoch = take(2, records, 100, share=Share(0, 2))
    assert per_epoch == 200 and after == [Position(0, 200), Position(1, 200)]
