# SPDX-License-Identifier: Apache-2.0
"""What one rank refuses, all refuse: ranks as threads that meet in every collective."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from launch.ranks import agreement
from launch.ranks.agreement import (
    Leaving,
    Refused,
    agree,
    gather_notices,
    leaving_alone,
    leaving_together,
    require_equal,
)
from launch.ranks.comm import Comm, NoConnection


@dataclass(frozen=True)
class ThreadComm(Comm):
    """One of several ranks in one process."""

    barrier: Any = None
    said: Any = None

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([np.array(x) for x in self.gather_json(rows.tolist())])

    def gather_json(self, value: Any) -> list[Any]:
        self.said[self.rank] = json.dumps(value)
        self.barrier.wait(timeout=120)  # a rank that left alone would break it for the others
        values = [json.loads(text) for text in self.said]
        self.barrier.wait(timeout=120)
        return values


def on_ranks(size: int, work: Callable[[Comm], Any]) -> list[Any]:
    """Run ``work`` on every rank; return its results or exceptions, by rank."""
    barrier, said, results = threading.Barrier(size), [None] * size, [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadComm(rank, size, rank, size, barrier, said))
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def refusals(results: list[Any]) -> list[str]:
    assert all(isinstance(r, Refused) for r in results), results
    return [str(r) for r in results]


def test_every_rank_gets_its_own_result():
    assert on_ranks(3, lambda comm: agree(comm, lambda: 10 * comm.rank)) == [0, 10, 20]


@pytest.mark.parametrize("error", [ValueError("no such key"), OSError("no such key")])
def test_one_rank_in_trouble_stops_all_with_its_sentence(error):
    def work(comm: Comm) -> int:
        if comm.rank == 2:
            raise error
        return 1

    results = on_ranks(4, lambda comm: agree(comm, lambda: work(comm)))
    assert refusals(results) == ["rank 2: no such key"] * 4


def test_the_same_trouble_everywhere_needs_no_rank():
    def work() -> None:
        raise ValueError("records: no such file")

    assert refusals(on_ranks(3, lambda comm: agree(comm, work))) == ["records: no such file"] * 3


def test_the_lowest_rank_speaks():
    def work(comm: Comm) -> None:
        if comm.rank:
            raise ValueError(f"trouble {comm.rank}")

    results = on_ranks(3, lambda comm: agree(comm, lambda: work(comm)))
    assert refusals(results) == ["rank 1: trouble 1"] * 3


def test_a_bug_on_one_rank_lets_no_other_hang(capsys):
    def work(comm: Comm) -> None:
        if comm.rank == 1:
            raise ZeroDivisionError("oops")

    results = on_ranks(2, lambda comm: agree(comm, lambda: work(comm)))
    assert refusals(results) == ["rank 1: internal fault ZeroDivisionError: oops"] * 2
    assert "Traceback" in capsys.readouterr().err


def test_values_must_be_equal_on_all_ranks():
    assert on_ranks(2, lambda comm: require_equal(comm, {"a": [1]}, "data")) == [None, None]
    results = on_ranks(3, lambda comm: require_equal(comm, comm.rank // 2, "data"))
    assert (
        refusals(results)
        == [
            "data: the ranks do not see the same, got 0 on rank 0 and 1 on rank 2; give every host "
            "the same files and command"
        ]
        * 3
    )


def test_alone_refuses_with_the_plain_sentence():
    def work() -> None:
        raise ValueError("wrong")

    with pytest.raises(Refused, match=r"^wrong$"):
        agree(Comm(), work)


def test_notices_of_all_ranks_are_told_once():
    own = [["driver is old"], ["driver is old"], ["driver is older", "no link"]]
    told = on_ranks(3, lambda comm: gather_notices(comm, own[comm.rank]))
    assert told == [("driver is old", "rank 2: driver is older", "rank 2: no link")] * 3
    assert gather_notices(Comm(), ()) == ()


class Ended(Leaving):
    exit_code = 143


@pytest.mark.parametrize(
    ("reason", "code"),
    [(None, 0), (Leaving("not finite"), 1), (Refused("no such file"), 2), (Ended("asked"), 143)],
)
def test_all_leave_with_the_code_of_the_reason(reason, code, capsys):
    def work() -> None:
        if reason:
            raise reason

    assert on_ranks(3, lambda comm: leaving_together(comm, work)) == [code] * 3
    said = f"run_train: {reason}\n" if reason else ""
    assert capsys.readouterr() == ("", said)  # once, by rank 0


def test_the_sentence_is_said_before_any_rank_leaves(monkeypatch):
    events = []

    class Watched(Comm):
        def gather_json(self, value: Any) -> list[Any]:
            events.append(value)
            return [value]

        def close(self) -> None:
            events.append("closed")

    def work() -> None:
        raise Refused("no such file")

    monkeypatch.setattr(agreement, "fail", events.append)
    assert leaving_together(Watched(), work) == 2
    assert events == ["no such file", "done", "closed"]


def test_a_rank_without_connection_speaks_for_its_host(monkeypatch, capsys):
    slept = []
    monkeypatch.setattr(agreement, "time", SimpleNamespace(sleep=slept.append))
    for local_rank, said, waits in (("0", "run_train: no name\n", []), ("3", "", [2.0])):
        slept.clear()
        monkeypatch.setenv("HOROVOD_LOCAL_RANK", local_rank)
        assert leaving_alone(NoConnection("no name")) == 2
        assert capsys.readouterr() == ("", said) and slept == waits
