# SPDX-License-Identifier: Apache-2.0
"""Shards cover all classes once, for any number of classes and ranks."""

import dataclasses

import pytest

from heads.shard import Shard, all_shards


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 64])
@pytest.mark.parametrize("num_classes", [0, 1, 2, 5, 63, 64, 65, 1_000_000, 100_000_001])
def test_shards_cover_all_classes_once_and_differ_by_one_at_most(num_classes, size):
    shards = list(all_shards(num_classes, size))
    assert [shard.start for shard in shards] == [0, *(shard.stop for shard in shards[:-1])]
    assert shards[-1].stop == num_classes
    lengths = [shard.num_rows for shard in shards]
    assert max(lengths) - min(lengths) <= 1 and lengths == sorted(lengths, reverse=True)
    assert [(shard.rank, shard.size) for shard in shards] == [(r, size) for r in range(size)]


def test_a_shard_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Shard.of(10, 0, 3).start = 1


@pytest.mark.parametrize(("rank", "size"), [(-1, 2), (2, 2), (0, 0)])
def test_a_rank_outside_the_ranks_is_refused(rank, size):
    with pytest.raises(ValueError, match=f"got rank {rank} of {size}; correct the rank"):
        Shard.of(10, rank, size)


def test_a_negative_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="got -1; give 0 or more"):
        Shard.of(-1, 0, 1)
