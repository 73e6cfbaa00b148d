# SPDX-License-Identifier: Apache-2.0
"""Losses on pairs: the check of batches, the logged cosine, no parameters."""

from __future__ import annotations

import mxnet as mx
import pytest

from heads import HEADS, build_head
from heads.metric import PAIRED, PairLoss, check_batches


@pytest.mark.parametrize("name", [name for name in HEADS if issubclass(HEADS[name], PairLoss)])
def test_losses_on_pairs_have_no_parameters_and_need_pairs(name):
    head = build_head(name, 10, 4)
    assert not list(head.collect_params())
    assert name in PAIRED
    _, cosine = head(mx.nd.array([[3, 4], [4, 3], [1, 0]]), mx.nd.array([0, 0, 1]))
    assert cosine.asnumpy() == pytest.approx([0.96, 0.96, 0])


@pytest.mark.parametrize(
    ("name", "choice", "data", "sentence"),
    [
        ("arcface", "", (False, 0), ""),
        ("mps", "", (True, 0), ""),
        ("triplet", "blocks", (True, 7200), ""),
        (
            "range",
            "",
            (False, 0),
            "head.name: 'range' needs several images of each person",
        ),
        (
            "marginal",
            "",
            (False, 0),
            "head.name: 'marginal' needs several images of each person",
        ),
        (
            "triplet",
            "hard",
            (False, 0),
            "head.name: 'triplet' needs several images of each person",
        ),
        (
            "triplet",
            "blocks",
            (True, 0),
            "head.mining: 'blocks' needs triplets selected from a bag of images, got",
        ),
        (
            "triplet",
            "hard",
            (True, 60),
            "data.bag: needs a head with head.mining=blocks",
        ),
        (
            "arcface",
            "",
            (True, 60),
            "data.bag: needs a head with head.mining=blocks",
        ),
    ],
)
def test_batches_without_pairs_are_refused(name, choice, data, sentence):
    if not sentence:
        check_batches(name, choice, *data)
        return
    with pytest.raises(ValueError) as refused:
        check_batches(name, choice, *data)
    assert str(refused.value).startswith(sentence) and "; " in str(refused.value)


def test_a_loss_on_pairs_must_define_the_loss_of_an_anchor():
    with pytest.raises(NotImplementedError):
        PairLoss(10, 4)(mx.nd.ones((2, 4)), mx.nd.array([0, 0]))
