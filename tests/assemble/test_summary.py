# SPDX-License-Identifier: Apache-2.0
"""The lines of the log that describe data, decoder and recipe."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from assemble.summary import (
    data_summary,
    describe_decoder,
    describe_verification,
    recipe_summary,
)
from tests.assemble.configuration import make_config, make_synthetic


def test_data_and_decoder_are_named():
    config = make_config("data.records=/set", "data.batch_size=7")
    inputs = SimpleNamespace(records=range(120), num_classes=12)
    assert data_summary(config, inputs, 2, "native") == {
        "data": "/set",
        "images": 120,
        "people": 12,
        "batch": "7 x 2 = 14",
        "order": "random",
        "decoder": "native (same pixels as DALI; data.decode=cpu for DALI)",
    }


def test_synthetic_batches_are_named():
    inputs = SimpleNamespace(records=None, num_classes=10)
    summary = data_summary(make_synthetic(), inputs, 1, "cpu")
    assert (summary["data"], summary["order"]) == ("synthetic", "one fixed batch")
    assert summary["decoder"] == "none (data.loader=synthetic)"


@pytest.mark.parametrize(
    ("loader", "decode", "text"),
    [
        ("dali", "cpu", "DALI on the CPU"),
        ("dali", "mixed", "DALI on the GPU (mixed)"),
        ("dali", "mixed_hardware", "DALI on the GPU (mixed_hardware)"),
        ("cpu", "cpu", "OpenCV in a Gluon DataLoader (data.loader=cpu)"),
    ],
)
def test_the_library_that_decodes_is_named(loader, decode, text):
    assert describe_decoder(loader, decode) == text


def test_net_head_optimizer_and_schedule_are_named():
    config = make_config("optim.milestones=[2 epochs, 60 %]", "optim.warmup=5 %", "optim.lr=0.05")
    net, optimizer, verification = recipe_summary(config, {})
    assert net.startswith("net mobilefacenet width 0.125 embedding_size 16")
    assert "  head arcface m2 0.5 " in net
    assert optimizer == (
        "optimizer sgd lr 0.05 momentum 0.9 weight_decay 0.0005  schedule step 2 epochs, 60 % "
        "warmup 5 %"
    )
    assert verification == "verification none (eval.sets is empty)"
    lines = recipe_summary(make_config("optim.schedule=cosine"), {})
    assert lines[1].endswith("  schedule cosine")


def test_sets_and_schedule_of_the_verification_are_named():
    sets = {"lfw": range(6000), "cfp_fp": range(7000)}
    assert describe_verification(make_config("eval.every_steps=0"), sets) == (
        "verification at the end  sets lfw (6000 pairs), cfp_fp (7000 pairs)"
    )
    config = make_config("eval.every_steps=500", "eval.best=lfw/accuracy", "eval.patience=3")
    assert describe_verification(config, {"lfw": range(9)}) == (
        "verification every 500 steps and at the end  sets lfw (9 pairs)  best checkpoint by "
        "lfw/accuracy  ends after 3 verifications without improvement"
    )
