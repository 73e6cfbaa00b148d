# SPDX-License-Identifier: Apache-2.0
"""Rules between the sections of a configuration, ranks and GPUs, and their messages."""

from __future__ import annotations

import pytest

from assemble.rules import check_run, require_none
from launch.config.configuration import ConfigError
from tests.assemble.configuration import make_config

TRIPLETS = ("data.batch_size=6", "data.images_per_person=3", "head.name=triplet")
BLOCKS = (*TRIPLETS, "head.mining=blocks", "data.bag=18")
BAG_MARGIN = (
    "data.bag: mines triplets with the full margin, got train.margin_start or train.margin_warmup "
    "above 0; remove both keys"
)

# Violated rule: overrides, ranks, GPUs, start of the message (heads/ has its own messages).
PROBLEMS = {
    "GPU decoder without a GPU": (
        ["data.decode=mixed"],
        1,
        0,
        "data.decode: 'mixed' requires a GPU, got none; use data.decode=auto",
    ),
    "batch normalisation of one image": (
        ["data.batch_size=1"],
        8,
        8,
        "data.batch_size: must be at least 2 per rank, because the batch normalisation of an "
        "embedding has no variance over one image, got 1; use data.batch_size=2 or more",
    ),
    "fused centres on several ranks": (
        ["optim.fused_centres=true"],
        2,
        0,
        "optim.fused_centres: requires one rank or head.sharded=true, got 2 ranks; set "
        "optim.fused_centres=false",
    ),
    "sampled centres with Nesterov momentum": (
        ["head.sharded=true", "head.sample_rate=0.1", "optim.name=nag"],
        2,
        0,
        "head.sample_rate: a value below 1 requires optim.name=sgd and optim.clip_norm=0, got "
        "'nag' and 0.0; change these two, or set head.sample_rate=1",
    ),
    "sampled centres with clipped gradients": (
        ["head.sharded=true", "head.sample_rate=0.1", "optim.clip_norm=5"],
        1,
        0,
        "head.sample_rate: a value below 1 requires optim.name=sgd and optim.clip_norm=0, got "
        "'sgd' and 5.0; ",
    ),
    "pairs without groups": (
        ["head.name=triplet"],
        1,
        0,
        "head.name: 'triplet' ",
    ),
    "blocks without a bag": (
        [*TRIPLETS, "head.mining=blocks"],
        1,
        0,
        "head.mining: 'blocks' ",
    ),
    "a bag without blocks": (
        [*TRIPLETS, "head.mining=hard", "data.bag=18"],
        1,
        0,
        "data.bag: ",
    ),
    "a bag with margin_start": ([*BLOCKS, "train.margin_start=10 %"], 1, 0, BAG_MARGIN),
    "a bag with margin_warmup": ([*BLOCKS, "train.margin_warmup=10 %"], 1, 0, BAG_MARGIN),
    "synthetic batches without num_classes": (
        ["data.records=[]", "data.loader=synthetic"],
        1,
        0,
        "data.num_classes: required for synthetic batches, got 0; set it to 1000, for example",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_violated_rule_has_one_message(name):
    overrides, ranks, gpus, message = PROBLEMS[name]
    (found,) = check_run(make_config(*overrides), ranks, gpus)
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("overrides", "ranks", "gpus"),
    [
        ([], 8, 0),
        (["data.decode=mixed"], 8, 8),
        (["data.decode=native"], 2, 0),
        (["optim.fused_centres=true"], 1, 0),
        (["optim.fused_centres=true", "head.sharded=true", "head.sample_rate=0.5"], 8, 0),
        (["optim.name=nag", "optim.clip_norm=5", "head.sharded=true"], 8, 0),
        (TRIPLETS, 2, 0),
        (BLOCKS, 2, 0),
        (["data.records=[]", "data.loader=synthetic", "data.num_classes=10"], 1, 0),
        # Synthetic batches contain pairs, because they have few people.
        (
            ["head.name=triplet", "data.records=[]", "data.loader=synthetic", "data.num_classes=2"],
            1,
            0,
        ),
    ],
)
def test_valid_configurations_violate_no_rule(overrides, ranks, gpus):
    assert check_run(make_config(*overrides), ranks, gpus) == []


def test_all_problems_are_listed():
    wrong = make_config("data.decode=mixed", "optim.fused_centres=true", "head.name=triplet")
    problems = check_run(wrong, 2, 0)
    assert [problem.split(":")[0] for problem in problems] == [
        "data.decode",
        "optim.fused_centres",
        "head.name",
    ]
    with pytest.raises(ConfigError) as caught:
        require_none(problems)
    first, *lines = str(caught.value).splitlines()
    assert first == "configuration: 3 problems"
    assert lines == [f"  {problem}" for problem in problems]


def test_a_single_problem_is_reported_without_a_list():
    with pytest.raises(ConfigError, match=r"^data\.bag: wrong$"):
        require_none(["data.bag: wrong"])
    require_none([])
