# SPDX-License-Identifier: Apache-2.0
"""What is read ahead for blocks: each block once, before its images are due, as the file lies.

And the batches of groups of people: whole groups on every rank, from any place on.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pipeline.records.open import RecordSet
from pipeline.sampling import permutations
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.batches import Blocks, People, Share, epoch_images, grouped, planned
from pipeline.sampling.permutations import Position

COUNT, BLOCK, WINDOW, BATCH, SEED = 500, 16, 64, 10, 3


def made(
    offsets: np.ndarray, file: np.ndarray | None = None, labels: np.ndarray | None = None
) -> RecordSet:
    count = len(offsets)
    return RecordSet(
        files=(Path("a.rec"), Path("b.rec")),
        file=np.zeros(count, np.int16) if file is None else file,
        keys=np.arange(1, count + 1),
        offsets=offsets,
        labels=np.zeros(count, np.int32) if labels is None else labels,
        num_classes=1 if labels is None else int(labels.max()) + 1,
        image_size=(112, 112),
    )


def reading(records, position, steps, size=1):
    """Return [(rows of a batch, rows asked for until then)] as rank 0 of ``size`` reads."""
    blocks, asked = Blocks(records, SEED, BLOCK, WINDOW), []
    settled = permutations.settle(position, len(records), BATCH * size)
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


def of_people() -> RecordSet:
    """Return 30 people, sorted anyhow, with 1 to 9 images, and 3 labels that nobody has."""
    random = np.random.default_rng(1)
    labels = np.repeat(np.setdiff1d(np.arange(33), [0, 7, 32]), random.integers(1, 10, 30))
    return made(np.arange(len(labels)), labels=random.permutation(labels).astype(np.int32))


def batches_of(records, position, steps, batch_size=4, size=1, each=2):
    """Return (rows of each rank, place after) for each step."""
    images = epoch_images(records, batch_size, size, each)
    order = People(records.labels, SEED, each).order
    ranks = [
        planned(
            *(records, SEED, position, batch_size, Share(rank, size), Augmentation(), order, images)
        )
        for rank in range(size)
    ]
    steps = islice(zip(*ranks, strict=True), steps)
    return [(np.stack([p.rows for p in plans]), plans[0].after) for plans in steps]


def test_every_rank_gets_whole_groups_and_an_epoch_shows_every_person_once():
    records = of_people()
    assert epoch_images(records, 4, 3, 2) == 60
    epoch = batches_of(records, Position(), 5, size=3)
    for rows, _ in epoch:
        whose = records.labels[rows].reshape(3, 2, 2)
        assert (whose[..., 0] == whose[..., 1]).all()
    after = epoch[-1][1]
    assert after == Position(0, 60)
    people = np.concatenate([records.labels[rows].reshape(-1) for rows, _ in epoch])
    assert sorted(people) == sorted([*set(records.labels.tolist())] * 2)
    (rows, after), *_ = batches_of(records, after, 1, size=3)
    assert after == Position(1, 12)
    # Other ranks see the same order, and 60 images fill seven steps of 8 but no eighth.
    one = batches_of(records, Position(), 8, batch_size=8)
    assert [after for _, after in one[-2:]] == [Position(0, 56), Position(1, 8)]
    flat = [np.concatenate([r.reshape(-1) for r, _ in steps])[:56] for steps in (epoch, one)]
    assert (flat[0] == flat[1]).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_groups_go_on_from_any_place_with_any_number_of_ranks(size):
    records = of_people()
    begun = batches_of(records, Position(2, 0), 2, batch_size=6, size=2)
    after = begun[-1][1]
    assert after == Position(2, 24)
    rest = batches_of(records, after, 36 // (6 * size) + 1, batch_size=6, size=size)
    used = np.concatenate([r.reshape(-1) for r, _ in [*begun, *rest[:-1]]])
    people = np.bincount(records.labels[used], minlength=33)
    assert set(people.tolist()) == {0, 2} and people.sum() == 60
    assert rest[-1][1] == Position(3, 6 * size)


def test_too_few_people_for_a_step():
    with pytest.raises(ValueError) as refused:
        epoch_images(of_people(), 8, 8, 2)
    assert str(refused.value) == (
        "data.batch_size: 8 x 8 ranks needs 64 images per step, got 30 people x 2 images in a.rec, "
        "b.rec; lower data.batch_size or add data"
    )
