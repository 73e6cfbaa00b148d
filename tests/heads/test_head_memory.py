# SPDX-License-Identifier: Apache-2.0
"""The memory that is stated before a head is allocated is that of its arrays."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import pytest
from mxnet import autograd

from heads import build_head
from heads.head_memory import HeadMemory, head_memory
from heads.shard_centres import Step
from heads.sharded import Sharding
from launch.ranks.comm import Comm

SAMPLED = {"sample_rate": 0.1}


@pytest.mark.parametrize("sub_centers", [1, 3])
@pytest.mark.parametrize("sample_rate", [1.0, 0.25])
def test_the_arrays_of_a_sharded_head_have_the_stated_sizes(sample_rate, sub_centers):
    name = "arcface" if sub_centers == 1 else "sub_center_arcface"
    options = {"sub_centers": sub_centers} if sub_centers > 1 else {}
    rank_0_of_3 = Sharding(Comm(0, 3), 0, Step(0.9, 0.0))
    head = build_head(
        name, 200, 8, sharding=rank_0_of_3, sharded=True, sample_rate=sample_rate, **options
    )
    head.initialize()
    need = head_memory(200, 8, 3, sample_rate=sample_rate, sub_centers=sub_centers)
    assert head.weight.data().size * 4 == need.centres == 67 * sub_centers * 8 * 4
    if sample_rate == 1:
        assert head.weight.grad().size * 4 == need.gradient
        assert need.sample == 0
    else:
        assert head.momentum["weight"].size * 4 == need.momentum
        assert head.weight.grad_req == "null" and need.gradient == 0
        sampled = len(head._sampler.draw(mx.nd.array([3, 150]).asnumpy()))
        assert need.sample == 3 * sampled * sub_centers * 8 * 4


def test_a_head_on_every_rank_needs_all_classes():
    head = build_head("arcface", 200, 8)
    head.initialize()
    with autograd.record():
        head(mx.nd.ones((2, 8)), mx.nd.array([0, 1]))[0].backward()
    need = head_memory(200, 8)
    assert need == HeadMemory(6400, 6400, 6400) and need.total == 19200
    assert head.weight.grad().size * 4 == need.gradient


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, {"centres": 100, "momentum": 100, "gradient": 100}),
        ({"has_momentum": False}, {"centres": 100, "gradient": 100}),
        ({"fused": True}, {"centres": 100, "momentum": 100}),
        ({"sample_rate": 0.1}, {"centres": 100, "momentum": 100, "sample": 30}),
        ({"sample_rate": 0.1, "fused": True}, {"centres": 100, "momentum": 100, "sample": 20}),
    ],
)
def test_the_parts_depend_on_the_update(options, parts):
    # 1,000 classes on 4 ranks, one float32 number each: 250 classes of 4 bytes.
    found = head_memory(1000, 1, 4, **options).parts()
    assert found == {name: share * 10 for name, share in parts.items()}


def test_the_rank_with_the_most_classes_counts():
    assert head_memory(10, 1, 4).centres == 3 * 4 and head_memory(2, 1, 4).centres == 4


def test_the_table_in_the_documentation_is_computed_by_this_function():
    text = (Path(__file__).resolve().parents[2] / "docs" / "large_sets.md").read_text()
    table = text.split("| identities | ranks |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(table) == 12
    for line in table:
        classes, ranks, *shown = (cell.strip() for cell in line.strip("|").split("|"))
        sizes = [
            head_memory(int(classes.replace(",", "")), 512, int(ranks), **options)
            for options in ({}, {"fused": True}, SAMPLED, {"fused": True, **SAMPLED})
        ]
        expected = [sizes[0].centres, *(size.total for size in sizes)]
        assert shown == [f"{size / (1 << 30):.2f}" for size in expected]
