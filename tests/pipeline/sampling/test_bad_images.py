# SPDX-License-Identifier: Apache-2.0
"""Replacement of bad images within a batch."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.records import RecordError, open_records
from pipeline.records.record_set import ImageError
from pipeline.sampling.augmentation import Augmentation, choose_params
from pipeline.sampling.bad_images import BadImages, permitted_images, replacements
from pipeline.sampling.batches import BatchPlan, join_plans
from pipeline.sampling.epoch_orders import Position


@pytest.fixture(scope="module")
def records(make_records, tmp_path_factory):
    """Return 4 people x 3 images; the class of row n is n // 3."""
    return open_records(make_records(4, 3), tmp_path_factory.mktemp("scan"))


def plan_of(records, *rows):
    rows = np.array(rows)
    params = choose_params(Augmentation(shift=9), records.ids(rows), 1, 0, (112, 112))
    return BatchPlan(rows, params, Position(0, 6))


def error_of(row):
    return ImageError(row, f"train.rec: the image of key {row + 1} cannot be decoded", "fix it")


@pytest.mark.parametrize(
    ("bad", "labels", "expected"),
    [
        ([1], [0, 1, 2, 3], [0, 2, 2, 3]),  # the next image
        ([3], [0, 1, 2, 3], [0, 1, 2, 0]),  # behind the last image comes the first
        ([1, 2], [0, 1, 2, 3], [0, 3, 3, 3]),  # a bad image replaces none
        ([0], [0, 1, 0, 1], [2, 1, 2, 3]),  # the next image of the class
        ([0, 2], [0, 1, 0, 1], [1, 1, 3, 3]),  # no good image of the class is left
    ],
)
def test_a_bad_image_is_replaced_by_the_next_of_its_class_or_else_the_next(bad, labels, expected):
    is_bad = np.isin(np.arange(len(labels)), bad)
    assert replacements(is_bad, np.array(labels)).tolist() == expected


@pytest.mark.parametrize("order", [(1, 4), (4, 1)])
def test_the_batch_does_not_depend_on_the_order_in_which_bad_images_are_found(records, order):
    bad, plan = BadImages(records, 9), plan_of(records, 0, 4, 1, 8, 11)
    attempts = []

    def start(plan):
        attempts.append(plan.rows.tolist())

        def finish():
            for row in order:
                if row in plan.rows:
                    raise error_of(row)
            return plan.rows

        return finish

    rows, replaced = bad.retried(plan, start(plan), start, lambda: None)
    assert rows.tolist() == [0, 8, 0, 8, 11] and len(attempts) == 3
    expected = plan_of(records, *rows)
    assert all((a == b).all() for a, b in zip(replaced.params, expected.params, strict=True))
    assert [image.id for image in replaced.skipped] == [5, 2]
    assert bad.replace(plan).rows.tolist() == rows.tolist()
    group = bad.replace_in(join_plans([plan, plan_of(records, 4, 9)]))
    assert group.rows.tolist() == [0, 8, 0, 8, 11, 9, 9]


def test_without_bad_images_the_plan_is_the_same_object(records):
    bad, plan = BadImages(records, 3), plan_of(records, 0, 4)
    assert bad.replace(plan) is plan
    bad.add(error_of(7))
    assert bad.replace(plan) is plan


def test_the_first_bad_image_is_an_error_unless_images_are_skipped(records):
    with pytest.raises(ImageError, match="key 4 cannot be decoded; fix it"):
        BadImages(records).add(error_of(3))


def test_more_bad_images_than_permitted_are_one_error(records):
    bad = BadImages(records, 1)
    bad.add(error_of(3))
    with pytest.raises(RecordError) as raised:
        bad.add(error_of(5))
    assert not isinstance(raised.value, ImageError)
    assert str(raised.value) == (
        "data.max_bad_fraction: permits 1 bad images of 12, got 2, of which the last is: "
        "train.rec: the image of key 6 cannot be decoded; repair the records or raise "
        "data.max_bad_fraction"
    )


def test_a_batch_of_bad_images_is_an_error(records):
    bad = BadImages(records, 9)
    for row in (2, 3):
        bad.add(error_of(row))
    with pytest.raises(RecordError, match="a batch needs a good image, got 2 bad images"):
        bad.replace(plan_of(records, 2, 3))


def test_a_shorter_file_is_not_taken_for_a_bad_image(records):
    bad = BadImages(records, 9)

    def refuse():
        raise RecordError("became shorter")

    def finish():
        raise error_of(3)

    with pytest.raises(RecordError, match="became shorter"):
        bad.retried(plan_of(records, 3, 4), finish, lambda plan: finish, refuse)
    assert not bad.knows(3)


def test_an_image_that_fails_although_it_is_replaced_ends_the_retries(records):
    bad = BadImages(records, 9)

    def finish():
        raise error_of(3)

    with pytest.raises(ImageError, match="key 4 "):
        bad.retried(plan_of(records, 3, 4), finish, lambda plan: finish, lambda: None)


@pytest.mark.parametrize(
    ("fraction", "images", "permitted"), [(0.001, 5000, 5), (0.001, 120, 1), (0, 120, 0)]
)
def test_a_fraction_above_0_permits_at_least_one_image(fraction, images, permitted):
    assert permitted_images(fraction, images) == permitted
