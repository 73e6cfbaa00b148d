# SPDX-License-Identifier: Apache-2.0
"""Class centres and batches that cannot fit into the memory are refused before training."""

from __future__ import annotations

import mxnet as mx
import pytest

from assemble.memory import GIB, MemoryNeeded, memory_bytes, require_memory

FITTING = {
    "where": "data.num_classes",
    "memory": 16 * GIB,
    "ranks": 2,
    "num_classes": 85_000,
    "embedding_size": 512,
    "copies": 2,
    "batch_size": 128,
    "image_size": (112, 112),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"num_classes": 1 << 24},
            "data.num_classes: the class centres of 16777216 classes with net.embedding_size=512 "
            "need 128.0 GiB on 2 ranks, got 16.0 GiB of memory; use fewer classes, a smaller "
            "embedding or more hosts",
        ),
        (
            {"batch_size": 1 << 20},
            "data.num_classes: batches of data.batch_size=1048576 images of 112x112 pixels need "
            "294.0 GiB on 2 ranks, got 16.0 GiB of memory; lower data.batch_size",
        ),
        (
            {"image_size": (13_000, 13_000)},
            "data.num_classes: batches of data.batch_size=128 images of 13000x13000 pixels need "
            "483.5 GiB on 2 ranks, got 16.0 GiB of memory; lower data.batch_size",
        ),
    ],
)
def test_what_cannot_fit_is_refused(change, message):
    require_memory(**FITTING)
    with pytest.raises(MemoryNeeded) as caught:
        require_memory(**{**FITTING, **change})
    assert str(caught.value) == message


def test_the_limit_of_a_container_counts(tmp_path):
    limit = tmp_path / "memory.max"
    whole = memory_bytes(mx.cpu(), limit)
    for text, expected in (("max\n", whole), ("1073741824\n", GIB), (str(whole * 2), whole)):
        limit.write_text(text)
        assert memory_bytes(mx.cpu(), limit) == expected
