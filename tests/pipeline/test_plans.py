# SPDX-License-Identifier: Apache-2.0
"""What is read ahead for blocks: each block once, before its images are due, as the file lies."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pipeline import sampling
from pipeline.augmentation import Augmentation
from pipeline.plans import Blocks, Share, grouped, planned
from pipeline.records import RecordSet
from pipeline.sampling import Position

COUNT, BLOCK, WINDOW, BATCH, SEED = 500, 16, 64, 10, 3


def made(offsets: np.ndarray, file: np.ndarray | None = None) -> RecordSet:
    count = len(offsets)
    return RecordSet(
        files=(Path("a.rec"), Path("b.rec")),
        file=np.zeros(count, np.int16) if file is None else file,
        keys=np.arange(1, count + 1),
        offsets=offsets,
        labels=np.zeros(count, np.int32),
        num_classes=1,
        image_size=(112, 112),
    )


def reading(records, position, steps, size=1):
    """Return [(rows of a batch, rows asked for until then)] as rank 0 of ``size`` reads."""
    blocks, asked = Blocks(records, SEED, BLOCK, WINDOW), []
    settled = sampling.settle(position, len(records), BATCH * size)
    plans = planned(*(records, SEED, settled, BATCH, Share(0, size), Augmentation(), blocks.order))
    groups = grouped(plans, 1, lambda rows: None, blocks.ahead(settled, asked.append))
    return [(group.rows, list(asked)) for group in islice(groups, steps)]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("position", [Position(), Position(2, 250), Position(0, 495)])
def test_blocks_are_asked_for_once_and_before_their_images_are_due(position, size):
    records = made(np.arange(COUNT) * 100)
    per_epoch = COUNT // (BATCH * size)
    batches = reading(records, position, 3 * per_epoch, size)
    for rows, asked in batches:
        assert set(rows) <= set(np.concatenate(asked))
    every = np.concatenate(batches[-1][1])
    if position == Position():
        assert (np.bincount(every[:COUNT], minlength=COUNT) == 1).all()
        assert (np.bincount(every[COUNT : 2 * COUNT], minlength=COUNT) == 1).all()
    # No more than two windows and the groups that are read ahead lie between asking and reading.
    behind = position.consumed // WINDOW * WINDOW if position != Position(0, 495) else 0
    for number, (_, asked) in enumerate(batches[: per_epoch // 2], 1):
        read = (position.consumed - behind if behind else 0) + number * BATCH * size
        assert len(np.concatenate(asked)) <= read + WINDOW + 4 * BATCH * size + BLOCK


def test_what_is_asked_for_lies_together_in_the_file():
    random = np.random.default_rng(0)
    file = (np.arange(COUNT) >= 300).astype(np.int16)
    offsets = random.permutation(COUNT) * 100
    records = made(offsets, file)
    (first, *_) = reading(records, Position(), 1)[-1][1]
    places = np.lexsort((offsets, file)).argsort()[first]  # in the order of the files
    assert (np.diff(places) == 1).mean() > 0.9
    assert made(np.arange(5)).in_file_order() is None
    assert made(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])).in_file_order() is None
    assert made(np.array([1, 0, 0, 1]), np.array([0, 0, 1, 1])).in_file_order().tolist() == [
        1,
        0,
        2,
        3,
    ]
