# SPDX-License-Identifier: Apache-2.0
"""Agreement between ranks, with ranks that are threads of this process."""

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
    exit_alone,
    exit_together,
    gather_notices,
    require_equal,
)
from launch.ranks.comm import Comm, NoConnection


@dataclass(frozen=True)
class ThreadComm(Comm):
    """Communication of one of several threads, which act as ranks."""

    barrier: Any = None
    values: Any = None

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([np.array(x) for x in self.gather_json(rows.tolist())])

    def gather_json(self, value: Any) -> list[Any]:
        self.values[self.rank] = json.dumps(value)
        self.barrier.wait(timeout=120)  # fails on all ranks if one of them does not arrive
        received = [json.loads(text) for text in self.values]
        self.barrier.wait(timeout=120)
        return received


def on_ranks(size: int, work: Callable[[Comm], Any]) -> list[Any]:
    """Run ``work`` on every rank; return its results or exceptions, by rank."""
    barrier, values, results = threading.Barrier(size), [None] * size, [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadComm(rank, size, rank, size, barrier, values))
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


def test_every_rank_returns_its_own_result():
    assert on_ranks(3, lambda comm: agree(comm, lambda: 10 * comm.rank)) == [0, 10, 20]


@pytest.mark.parametrize("error", [ValueError("no such key"), OSError("no such key")])
def test_an_error_on_one_rank_is_raised_on_all(error):
    def work(comm: Comm) -> int:
        if comm.rank == 2:
            raise error
        return 1

    results = on_ranks(4, lambda comm: agree(comm, lambda: work(comm)))
    assert refusals(results) == ["rank 2: no such key"] * 4


def test_an_error_on_all_ranks_names_no_rank():
    def work() -> None:
        raise ValueError("records: no such file")

    assert refusals(on_ranks(3, lambda comm: agree(comm, work))) == ["records: no such file"] * 3


def test_the_message_of_the_lowest_rank_is_used():
    def work(comm: Comm) -> None:
        if comm.rank:
            raise ValueError(f"trouble {comm.rank}")

    results = on_ranks(3, lambda comm: agree(comm, lambda: work(comm)))
    assert refusals(results) == ["rank 1: trouble 1"] * 3


def test_a_bug_on_one_rank_ends_all_ranks(capsys):
    def work(comm: Comm) -> None:
        if comm.rank == 1:
            raise ZeroDivisionError("oops")

    results = on_ranks(2, lambda comm: agree(comm, lambda: work(comm)))
    assert refusals(results) == ["rank 1: internal error ZeroDivisionError: oops"] * 2
    assert "Traceback" in capsys.readouterr().err


def test_values_must_be_equal_on_all_ranks():
    assert on_ranks(2, lambda comm: require_equal(comm, {"a": [1]}, "data")) == [None, None]
    results = on_ranks(3, lambda comm: require_equal(comm, comm.rank // 2, "data"))
    assert (
        refusals(results)
        == [
            "data: must be equal on all ranks, got 0 on rank 0 and 1 on rank 2; use the same files "
            "and the same command on every host"
        ]
        * 3
    )


def test_the_message_of_a_single_rank_names_no_rank():
    def work() -> None:
        raise ValueError("wrong")

    with pytest.raises(Refused, match=r"^wrong$"):
        agree(Comm(), work)


def test_notices_of_all_ranks_contain_no_duplicates():
    own = [["driver is old"], ["driver is old"], ["driver is older", "no link"]]
    notices = on_ranks(3, lambda comm: gather_notices(comm, own[comm.rank]))
    assert notices == [("driver is old", "rank 2: driver is older", "rank 2: no link")] * 3
    assert gather_notices(Comm(), ()) == ()


class Ended(Leaving):
    exit_code = 143


@pytest.mark.parametrize(
    ("reason", "code"),
    [(None, 0), (Leaving("not finite"), 1), (Refused("no such file"), 2), (Ended("asked"), 143)],
)
def test_all_ranks_return_the_exit_code_of_the_reason(reason, code, capsys):
    def work() -> None:
        if reason:
            raise reason

    assert on_ranks(3, lambda comm: exit_together(comm, work)) == [code] * 3
    message = f"run_train: {reason}\n" if reason else ""
    assert capsys.readouterr() == ("", message)  # rank 0 prints it


def test_the_message_is_printed_before_any_rank_exits(monkeypatch):
    events = []

    class Watched(Comm):
        def gather_json(self, value: Any) -> list[Any]:
            events.append(value)
            return [value]

        def close(self) -> None:
            events.append("closed")

    def work() -> None:
        raise Refused("no such file")

    monkeypatch.setattr(agreement, "print_error", events.append)
    assert exit_together(Watched(), work) == 2
    assert events == ["no such file", "done", "closed"]


def test_local_rank_0_reports_a_missing_connection(monkeypatch, capsys):
    slept = []
    monkeypatch.setattr(agreement, "time", SimpleNamespace(sleep=slept.append))
    for local_rank, message, waits in (("0", "run_train: no name\n", []), ("3", "", [2.0])):
        slept.clear()
        monkeypatch.setenv("HOROVOD_LOCAL_RANK", local_rank)
        assert exit_alone(NoConnection("no name")) == 2
        assert capsys.readouterr() == ("", message) and slept == waits


@dataclass(frozen=True)
class LostComm(Comm):
    """Communication of a rank whose connection to the other ranks is lost."""

    def gather_json(self, value: Any) -> list[Any]:
        raise RuntimeError("Horovod has been shut down")

    def has_lost(self, error: Exception) -> bool:
        return "Horovod" in str(error)

    def name_lost_ranks(self, write: Callable[[str], None]) -> None:
        write("rank 1 on gpu2 has not answered for 30 s")


def test_a_lost_connection_has_one_message_and_no_traceback(capsys):
    comm = LostComm()
    assert exit_together(comm, lambda: agree(comm, lambda: comm.gather_json(1))) == 1
    message = "run_train: rank 1 on gpu2 has not answered for 30 s\n"
    assert capsys.readouterr() == ("", message)


def test_another_error_keeps_its_traceback():
    def work() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        exit_together(LostComm(), work)
