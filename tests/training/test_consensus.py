# SPDX-License-Identifier: Apache-2.0
"""Exchange of errors, of stop requests and of the decision to save."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from launch.ranks.comm import Comm
from tests.launch.ranks.test_agreement import on_ranks
from training import consensus as module
from training.consensus import GRACE_S, Consensus, Kind, Trouble
from training.faults import Stopped, TrainingError

DAMAGED = Trouble(Kind.DATA, "train.rec: the image of key 7 cannot be decoded")
FULL = Trouble(Kind.DISK, "metrics.jsonl cannot be written")


def not_finite(step):
    return Trouble(Kind.NOT_FINITE, f"the loss of step {step} is not finite, got nan", step)


def leave(troubles, saved_step=None):
    """Exchange these troubles between ranks; return the error that all ranks raise."""

    def work(comm):
        consensus = Consensus(comm, saved_step)
        if troubles[comm.rank] is not None:
            consensus.report(troubles[comm.rank])
        return consensus.exchange()

    errors = on_ranks(len(troubles), work)
    assert all(type(error) is TrainingError for error in errors), errors
    assert len({(str(error), error.exit_code) for error in errors}) == 1
    return errors[0]


@pytest.mark.parametrize(
    ("troubles", "sentence"),
    [
        ([None, DAMAGED, None], f"rank 1: {DAMAGED.text}"),
        ([None, FULL], f"rank 1: {FULL.text}"),
        ([FULL, DAMAGED], f"rank 0: {FULL.text}"),  # the lowest rank
        ([not_finite(3), DAMAGED], f"rank 1: {DAMAGED.text}"),  # an error that the user can repair
        ([not_finite(5), not_finite(3)], "rank 1: the loss of step 3"),  # the earliest
    ],
)
def test_all_ranks_name_the_same_trouble(troubles, sentence):
    assert str(leave(troubles)).startswith(sentence)


def test_the_kind_of_trouble_sets_the_exit_code():
    assert leave([None, DAMAGED]).exit_code == 2
    assert leave([None, not_finite(3)]).exit_code == 1


@pytest.mark.parametrize(
    ("saved_step", "saved"),
    [
        (None, "no checkpoint has been saved yet"),
        (40, "the last good checkpoint (step 40) is kept"),
    ],
)
def test_a_non_finite_loss_names_the_checkpoint(saved_step, saved):
    assert f"; {saved}; start" in str(leave([not_finite(43), None], saved_step))


def test_a_single_rank_is_not_named():
    consensus = Consensus(Comm())
    consensus.report(DAMAGED)
    consensus.report(FULL)  # ignored: only the first counts
    with pytest.raises(TrainingError) as caught:
        consensus.exchange()
    assert str(caught.value) == DAMAGED.text


def test_numbers_are_returned_by_name_and_rank():
    def work(comm):
        return Consensus(comm).exchange(loss=1.0 + comm.rank, cosine=0.5)

    for found in on_ranks(3, work):
        assert found["loss"].tolist() == [1, 2, 3] and found["cosine"].tolist() == [0.5] * 3
        assert [*found] == ["loss", "cosine"] and found["loss"].dtype == np.float64


def test_settle_raises_on_all_ranks_if_one_has_a_trouble():
    assert on_ranks(2, lambda comm: Consensus(comm).settle(None)) == [None, None]
    errors = on_ranks(2, lambda comm: Consensus(comm).settle(FULL if comm.rank else None))
    assert [str(error) for error in errors] == [f"rank 1: {FULL.text}"] * 2


def stop(comm, saved, requested=True, step_seconds=0.1):
    """Request a stop on rank 1, exchange, stop."""
    consensus = Consensus(comm)
    if requested and comm.rank == 1:
        consensus.ask_stop(signal.SIGTERM, None)
    consensus.exchange()
    assert consensus.stop_agreed == requested

    def save():
        saved.append(comm.rank)
        consensus.saved_step = 8

    if requested:
        consensus.stop(8, step_seconds, save)


def test_a_request_to_one_rank_stops_all_ranks():
    saved = []
    stopped = on_ranks(2, lambda comm: stop(comm, saved))
    assert all(type(error) is Stopped for error in stopped), stopped
    sentence = "stopped at step 8, saved at step 8; the same command resumes at step 8"
    assert [str(error) for error in stopped] == [sentence] * 2
    assert sorted(saved) == [0, 1]
    assert on_ranks(2, lambda comm: stop(comm, saved, requested=False)) == [None, None]


def test_nothing_is_saved_if_two_steps_exceed_the_grace_period():
    saved = []
    stopped = on_ranks(2, lambda comm: stop(comm, saved, step_seconds=GRACE_S))
    assert [str(error) for error in stopped] == [
        "stopped at step 8 without a checkpoint; the same command starts at step 0"
    ] * 2
    assert saved == []


class Clock:
    """Replacement of ``time``."""

    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(("waited", "saves"), [(1.0, True), (3.5, False)])
def test_the_grace_period_starts_at_the_first_request(monkeypatch, waited, saves):
    clock, consensus, saved = Clock(), Consensus(Comm(), 5), []
    monkeypatch.setattr(module, "time", clock)
    consensus.ask_stop(signal.SIGTERM, None)
    clock.now += waited  # of 4 s; a save needs 1 s at least
    consensus.ask_stop(signal.SIGTERM, None)
    with pytest.raises(Stopped):
        consensus.stop(8, 0.1, lambda: saved.append(8))
    assert bool(saved) == saves


def test_no_rank_saves_if_one_lacks_the_time(monkeypatch):
    clock, saved = Clock(), []
    monkeypatch.setattr(module, "time", clock)

    def work(comm):
        consensus = Consensus(comm, 5)
        if comm.rank == 1:
            consensus.ask_stop(signal.SIGTERM, None)
            clock.now += 3.5  # before the exchange
        consensus.exchange()
        consensus.stop(8, 0.1, lambda: saved.append(comm.rank))

    stopped = on_ranks(2, work)
    assert {str(error) for error in stopped} == {
        "stopped at step 8, saved at step 5; the same command resumes at step 5"
    }
    assert not saved


def test_a_saved_step_is_not_saved_again():
    consensus = Consensus(Comm(), 8)
    consensus.ask_stop(signal.SIGTERM, None)
    with pytest.raises(Stopped, match="stopped at step 8, saved at step 8"):
        consensus.stop(8, 0.1, lambda: pytest.fail("saved again"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_stop_requests_inside_listening(number):
    before = signal.signal(number, signal.default_int_handler)
    try:
        consensus = Consensus(Comm())
        with consensus.listening():
            os.kill(os.getpid(), number)
            consensus.exchange()
        assert consensus.stop_agreed
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_an_ignored_sighup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        consensus = Consensus(Comm())
        with consensus.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            consensus.exchange()
        assert not consensus.stop_agreed
    finally:
        signal.signal(signal.SIGHUP, before)
