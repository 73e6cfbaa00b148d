# SPDX-License-Identifier: Apache-2.0
"""Facts about a whole run: the warning about a risen loss, and the skipped images of all ranks."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from launch.ranks.comm import Comm
from training.faults import TrainingError
from training.history import History, exchange_skipped


def history_of(*intervals):
    """Return the history of intervals (first loss, mean loss, first margin, last margin)."""
    history = History()
    for first, mean, *margins in intervals:
        history.add_losses(first, mean, tuple(margins))
    return history


@pytest.mark.parametrize(
    ("intervals", "warns"),
    [
        ([(14.0, 27.0, 1, 1), (29.0, 29.0, 1, 1)], True),
        ([(14.0, 20.0, 1, 1), (9.0, 8.0, 1, 1)], False),
        ([(14.0, 14.1, 1, 1), (14.2, 14.3, 1, 1)], False),  # as batches differ
        ([(6.0, 8.0, 0, 0.5), (9.0, 12.0, 0.5, 1), (13.0, 11.0, 1, 1)], False),  # warm-up
        ([(6.0, 8.0, 0, 0.5), (9.0, 12.0, 0.5, 1), (13.0, 31.0, 1, 1)], True),
        ([(6.0, 8.0, 0, 0.5), (9.0, 12.0, 0.5, 0.9)], False),  # the run ends in the warm-up
        ([], False),
    ],
)
def test_a_risen_loss_is_a_warning_unless_the_margin_has_grown(intervals, warns):
    assert bool(history_of(*intervals).warning) == warns


def test_the_warning_names_both_losses_and_the_ways_on():
    assert history_of((14.0, 27.0, 1, 1), (28.0, 29.0, 1, 1)).warning == (
        "warning: the loss rose from 14 to 29, so the net has not learned; start again "
        "(run.resume=false) with a lower optim.lr, a longer optim.warmup or train.margin_warmup, "
        "or from trained weights with train.pretrained"
    )


def test_a_resumed_run_has_the_history_of_its_checkpoint():
    before = history_of((14.0, 15.0, 1, 1))
    before.add_skipped(7, "the image of key 7 cannot be decoded")
    after = History(**json.loads(json.dumps(asdict(before))))
    assert after == before
    assert not after.add_skipped(7, "the image of key 7 cannot be decoded")
    after.add_losses(28.0, 29.0, (1, 1))
    assert "from 14 to 29" in after.warning


class Ranks(Comm):
    """Two ranks, of which the other one has skipped the image of key 9."""

    def gather_json(self, value):
        return [value, [[9, "key 9 is cut off"]]]


def test_every_rank_records_and_names_the_images_of_all_ranks():
    history, lines = History(), []
    options = {"permitted": 2, "say": lines.append}
    found = {5: "key 5 cannot be decoded"}
    for _ in range(2):  # an image that is skipped in a second epoch is not a new one
        exchange_skipped(Ranks(0, 2), history, found.items(), **options)
    assert list(history.skipped.values()) == ["key 5 cannot be decoded", "key 9 is cut off"]
    assert lines == [
        "skipped bad image 1: key 5 cannot be decoded",
        "skipped bad image 2: key 9 is cut off",
    ]


def test_too_many_bad_images_of_all_ranks_together_end_the_run():
    with pytest.raises(TrainingError) as raised:
        exchange_skipped(Ranks(0, 2), History(), [(5, "key 5")], permitted=1, say=list)
    assert raised.value.usage and str(raised.value) == (
        "data.max_bad_fraction: permits 1 bad images, got 2 on all ranks together, of which the "
        "last is: key 9 is cut off; repair the records or raise data.max_bad_fraction"
    )
