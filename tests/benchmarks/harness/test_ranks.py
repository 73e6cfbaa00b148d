# SPDX-License-Identifier: Apache-2.0
"""Several ranks behind one process: combined answers, lost ranks and the end."""

from __future__ import annotations

import pytest

from benchmarks.harness.process import Candidate, Process, WorkerError
from benchmarks.harness.ranks import combine, combine_hellos

ECHO = "tests.benchmarks.echo_steps"


def echo_on_ranks(ranks: int, **settings) -> Candidate:
    started = {"ranks": ranks, "launcher": "none", "module": ECHO, "settings": settings}
    return Candidate("ours", "benchmarks.harness.ranks", started)


def test_the_answers_of_real_ranks_are_combined():
    with Process(echo_on_ranks(2, value=3.0, parameters=5)) as process:
        assert process.hello["parameters"] == 10
        assert process.hello["versions"] == {"echo": "1.2.3"}
        for steps in (2, 3):
            answer = process.ask(steps=steps, untimed=1)
            assert len(answer["seconds"]) == steps
            assert answer["value"] == 3.0
            assert answer["peak_mib"] == pytest.approx(sum(answer["rank_peak_mib"]))


def test_a_rank_that_dies_ends_the_others():
    with Process(echo_on_ranks(2, dies="the reason")) as process:
        with pytest.raises(WorkerError, match="a rank ended before it answered|the reason"):
            process.ask(steps=1)
        assert process._process.returncode == 1


def test_a_rank_that_cannot_run_leaves_the_row_out():
    with Process(echo_on_ranks(2, left_out="no such device")) as process:
        assert process.hello == {"left_out": "no such device"}


def test_a_step_takes_as_long_as_on_the_slowest_rank():
    def answer(seconds, peak, sent):
        return {
            "seconds": seconds,
            "seconds_without_update": [],
            "elapsed": sum(seconds),
            "value": peak,
            "peak_mib": peak,
            "extra_mib": 1.0,
            "sent_kib": sent,
        }

    found = combine([answer([1.0, 4.0], 10.0, 7.0), answer([2.0, 3.0], 30.0, 6.0)])
    assert found["seconds"] == [2.0, 4.0]
    assert (found["value"], found["peak_mib"], found["extra_mib"]) == (20.0, 40.0, 2.0)
    assert found["rank_peak_mib"] == [10.0, 30.0]
    assert found["sent_kib"] == 7.0


def test_the_parameters_of_all_ranks_count():
    hellos = [{"parameters": 3, "versions": {"a": "1"}}, {"parameters": 4, "versions": {}}]
    assert combine_hellos(hellos) == {"parameters": 7, "versions": {"a": "1"}}
