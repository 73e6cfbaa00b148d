# SPDX-License-Identifier: Apache-2.0
"""Batch plans: parameters of their epoch, groups in order, read-ahead."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from pipeline.sampling.augmentation import Augmentation, choose_params
from pipeline.sampling.batches import (
    READ_AHEAD_GROUPS,
    Share,
    batch_plans,
    epoch_images,
    grouped,
)
from pipeline.sampling.epoch_orders import Position
from pipeline.sampling.samplers import RandomSampler
from tests.pipeline.sampling.sets import made_set, people_set

BATCH, SEED = 10, 3
ALL = Augmentation(color_jitter=0.1, jpeg_quality=(2, 20), cut_out=9, shift=3, grey=0.1)


@pytest.fixture
def records():
    return made_set(np.arange(55) * 100)


def plans_of(records):
    sampler = RandomSampler(records, BATCH, seed=SEED)
    return batch_plans(records, sampler.batches(Position()), seed=SEED, augmentation=ALL)


def test_a_plan_has_the_parameters_of_its_images_in_its_epoch(records):
    plans = list(islice(plans_of(records), 12))
    assert [plan.after.epoch for plan in plans] == [0] * 5 + [1] * 5 + [2] * 2
    for plan in plans:
        expected = choose_params(ALL, plan.rows + 1, SEED, plan.after.epoch, (112, 112))
        for found, right in zip(plan.params, expected, strict=True):
            assert (found == right).all()


@pytest.mark.parametrize("group_size", [1, 4])
def test_groups_hold_the_plans_in_order(records, group_size):
    asked: list[tuple[np.ndarray, Position]] = []
    groups = grouped(plans_of(records), group_size, lambda rows, after: asked.append((rows, after)))
    single = plans_of(records)
    for number, group in enumerate(islice(groups, 3), 1):
        plans = list(islice(single, group_size))
        assert [plan.after for plan in group.plans] == [plan.after for plan in plans]
        assert (group.rows == np.concatenate([plan.rows for plan in plans])).all()
        for found, parts in zip(group.params, zip(*(p.params for p in plans)), strict=True):
            assert (found == np.concatenate(parts)).all()
        assert group.images is None
        # The records of this group and of the next ones were read ahead, in order.
        assert len(asked) == number + READ_AHEAD_GROUPS
        rows, after = asked[number - 1]
        assert (rows == group.rows).all() and after == plans[-1].after


def test_an_epoch_of_people_has_a_group_per_person():
    records = people_set()
    assert epoch_images(records, 4, 3) == len(records)
    assert epoch_images(records, 4, 3, 2) == 60
    with pytest.raises(ValueError) as refused:
        epoch_images(records, 8, 8, 2)
    assert str(refused.value) == (
        "data.batch_size: 8 x 8 ranks needs 64 images per step, got 30 classes x 2 images in a.rec"
        "; lower data.batch_size or add data"
    )


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(ValueError) as refused:
        epoch_images(made_set(np.arange(130)), 50, 3)
    assert str(refused.value) == (
        "data.batch_size: 50 x 3 ranks needs 150 images per step, got 130 in a.rec; lower "
        "data.batch_size or add data"
    )
    assert Share(1, 3).global_batch_size(50) == 150
