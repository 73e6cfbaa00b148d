# SPDX-License-Identifier: Apache-2.0
"""Each rule between sections, ranks and GPUs by its sentence; several problems are listed."""

from __future__ import annotations

import pytest

from assemble.rules import check_run, require_none
from launch.config.configuration import ConfigError
from tests.assemble.configuration import make_config

TRIPLETS = ("data.batch_size=6", "data.images_per_person=3", "head.name=triplet")
BLOCKS = (*TRIPLETS, "head.mining=blocks", "data.bag=18")

# What is wrong: overrides, ranks, GPUs, the sentence.
PROBLEMS = {
    "decoder of GPUs": (
        ["data.decode=mixed"],
        1,
        0,
        "data.decode: 'mixed' needs a GPU, got none; use data.decode=auto",
    ),
    "fused centres on several ranks": (
        ["optim.fused_centres=true"],
        2,
        0,
        "optim.fused_centres: is for one rank, got 2 ranks with all centres on each; set it to "
        "false",
    ),
    "pairs without groups": (
        ["head.name=triplet"],
        1,
        0,
        "head.name: 'triplet' compares images of one person, got data.images_per_person=0; set it "
        "to 4, say, with a data.batch_size that it divides",
    ),
    "blocks without a bag": (
        [*TRIPLETS, "head.mining=blocks"],
        1,
        0,
        "head.mining: 'blocks' takes triplets chosen from a bag, got data.bag=0; set data.bag "
        "(7200 is usual) or use head.mining=semi_hard",
    ),
    "a bag without blocks": (
        [*TRIPLETS, "head.mining=hard", "data.bag=18"],
        1,
        0,
        "data.bag: chooses the triplets of a head with head.mining=blocks, got 'triplet' with "
        "hard; use head.name=triplet head.mining=blocks, or data.bag=0",
    ),
    "a bag with a margin that starts late": (
        [*BLOCKS, "train.margin_start=10 %"],
        1,
        0,
        "data.bag: chooses triplets by the whole margin, got one that rises during training; "
        "leave train.margin_start and train.margin_warmup out",
    ),
    "a bag with a margin that rises": (
        [*BLOCKS, "train.margin_warmup=10 %"],
        1,
        0,
        "data.bag: chooses triplets by the whole margin, got one that rises during training; "
        "leave train.margin_start and train.margin_warmup out",
    ),
    "synthetic batches of nobody": (
        ["data.records=[]", "data.loader=synthetic"],
        1,
        0,
        "data.num_classes: required for synthetic batches, got 0",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_one_sentence(name):
    overrides, ranks, gpus, sentence = PROBLEMS[name]
    assert check_run(make_config(*overrides), ranks, gpus) == [sentence]


@pytest.mark.parametrize(
    ("overrides", "ranks", "gpus"),
    [
        ([], 8, 0),
        (["data.decode=mixed"], 8, 8),
        (["data.decode=native"], 2, 0),
        (["optim.fused_centres=true"], 1, 0),
        (TRIPLETS, 2, 0),
        (BLOCKS, 2, 0),
        (["data.records=[]", "data.loader=synthetic", "data.num_classes=10"], 1, 0),
        # One batch of few people: it has pairs.
        (
            ["head.name=triplet", "data.records=[]", "data.loader=synthetic", "data.num_classes=2"],
            1,
            0,
        ),
    ],
)
def test_no_problem(overrides, ranks, gpus):
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


def test_one_problem_stands_alone_and_none_passes():
    with pytest.raises(ConfigError, match=r"^data\.bag: wrong$"):
        require_none(["data.bag: wrong"])
    require_none([])
