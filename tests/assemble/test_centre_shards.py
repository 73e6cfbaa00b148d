# SPDX-License-Identifier: Apache-2.0
"""Every rank gets the class centres of its own classes from a model that rank 0 reads."""

from __future__ import annotations

import numpy as np
import pytest

from assemble import centre_shards
from assemble.centre_shards import load_shards
from assemble.class_centres import ClassMatch
from heads import build_head
from heads.sharded import Sharding
from launch.ranks.agreement import Refused
from tests.training.sharded_model import class_values, on_ranks, save
from training.checkpoint import open_checkpoint
from training.checkpoint_files import CheckpointError

CLASSES, SOURCE_CLASSES = 11, 14


def match(own, source, count=SOURCE_CLASSES):
    return ClassMatch(np.array(own, np.int64), np.array(source, np.int64), count, "a reason")


def loaded(stored, found, ranks=3, name="arcface", classes=CLASSES, **settings):
    """Load centres on several ranks; return the texts, and all centres before and after."""

    def work(comm):
        head = build_head(name, classes, 3, sharding=Sharding(comm), sharded=True, **settings)
        head.initialize()
        head.weight.data()[:] = -7.0
        try:
            text = load_shards(head, None if comm.rank else stored, stored.shape, found, comm)
        except Refused as error:
            return error
        return text, head.weight.data().asnumpy()[: head.shard.num_rows * head.sub_centers]

    results = on_ranks(ranks, work)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return [text for text, _ in results], np.concatenate([rows for _, rows in results])


@pytest.mark.parametrize("block", [1, 40, 1 << 20])
@pytest.mark.parametrize("ranks", [1, 3, 13])
def test_each_rank_keeps_the_centres_of_its_classes(ranks, block, monkeypatch):
    monkeypatch.setattr(centre_shards, "BLOCK_BYTES", block)
    stored = class_values(SOURCE_CLASSES)
    own, source = [10, 0, 4, 3, 7], [2, 13, 5, 6, 0]
    texts, centres = loaded(stored, match(own, source), ranks)
    expected = np.full((CLASSES, 3), -7.0, np.float32)
    expected[own] = stored[source]
    assert np.array_equal(centres, expected)
    assert texts == ["class centres taken over: 5 of 11 (a reason)"] * ranks


def test_all_centres_of_a_class_are_taken_over():
    stored = class_values(CLASSES, 3)
    everything = np.arange(CLASSES)
    _, centres = loaded(
        stored, match(everything, everything, CLASSES), name="sub_center_arcface", sub_centers=3
    )
    assert np.array_equal(centres, stored)


def test_centres_of_another_size_are_not_taken_over():
    found = match([0], [1])
    for stored in (class_values(SOURCE_CLASSES, 3), np.ones((SOURCE_CLASSES, 4)), np.ones((15, 3))):
        texts, centres = loaded(stored, found)
        assert texts[0].startswith(
            "class centres taken over: 0 of 11 (the model has an array of shape "
        )
        assert (centres == -7.0).all()


def test_the_shards_of_a_checkpoint_are_a_source(tmp_path):
    rows = open_checkpoint(save(tmp_path, SOURCE_CLASSES, 4)).stored_head()["weight"]
    _, centres = loaded(rows, match([1, 10], [13, 3]))
    assert np.array_equal(centres[[1, 10]], class_values(SOURCE_CLASSES)[[13, 3]])


def test_an_error_of_rank_0_ends_all_ranks(monkeypatch):
    class Broken:
        shape = (SOURCE_CLASSES, 3)

        def __getitem__(self, rows):
            raise CheckpointError("fc7.params: is truncated")

    monkeypatch.setattr(centre_shards, "BLOCK_BYTES", 1)
    with pytest.raises(Refused, match="rank 0: fc7.params: is truncated"):
        loaded(Broken(), match([0, 1], [0, 1]))
