# SPDX-License-Identifier: Apache-2.0
"""Ranks of the commands, with a stand-in for the connection to a second rank."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import pytest

from evaluation.commands.ranks import Ranks, run_on_ranks
from launch.ranks.comm import Comm, NoConnection


@dataclass(frozen=True)
class TwoRanks(Comm):
    """One of two ranks; the other rank sends `answers`, and then the values of this rank."""

    size: int = 2
    local_size: int = 2
    answers: list[Any] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def gather_json(self, value: Any) -> list[Any]:
        other = self.answers.pop(0) if self.answers else value
        return [other, value] if self.rank else [value, other]

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def launch(monkeypatch):
    """Return ``launch(work, comm)``, which calls ``run_on_ranks(work)`` as on a launched rank."""

    def run(work, comm):
        def connect():
            if isinstance(comm, Exception):
                raise comm
            return comm

        for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
            monkeypatch.setenv(name, "PASSIVE")
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOROVOD_SIZE", "2")
        monkeypatch.setenv("HOROVOD_LOCAL_SIZE", "2")
        monkeypatch.setattr("os.sched_getaffinity", lambda process: range(8))
        monkeypatch.setattr("launch.ranks.comm.connect", connect)
        return run_on_ranks(work)

    return run


def test_without_a_launcher_one_rank_works_and_its_errors_are_not_caught(monkeypatch):
    monkeypatch.delenv("HOROVOD_SIZE", raising=False)
    found = []
    assert run_on_ranks(lambda ranks: found.append(ranks.agree(lambda: ranks.size))) == 0
    assert found == [1]
    with pytest.raises(ZeroDivisionError):
        run_on_ranks(lambda ranks: 1 // 0)


def test_the_work_of_a_launched_rank_knows_its_place_and_shares_the_cores(launch):
    found = []

    def work(ranks: Ranks) -> None:
        found.append((ranks.rank, ranks.size, ranks.local_rank, ranks.local_size))
        found.append(ranks.agree(lambda: "own result"))
        found.append(os.environ["OMP_NUM_THREADS"])

    comm = TwoRanks(rank=1, local_rank=1)
    assert launch(work, comm) == 0
    assert found == [(1, 2, 1, 2), "own result", "4"] and comm.calls == ["close"]


@pytest.mark.parametrize("rank, said", [(0, "error: rank 1: no such file\n"), (1, "")])
def test_an_error_of_the_other_rank_ends_this_one_and_is_printed_once(launch, capsys, rank, said):
    found = []

    def work(ranks: Ranks) -> None:
        found.append(ranks.agree(lambda: 5))

    comm = TwoRanks(rank=rank, answers=["no such file"])
    assert launch(work, comm) == 2
    out, err = capsys.readouterr()
    assert (found, out, err, comm.calls) == ([], "", said, ["close"])


def test_ranks_with_other_files_are_refused(launch, capsys):
    def work(ranks: Ranks) -> None:
        ranks.require_equal({"lfw": 3}, "verification sets")

    assert launch(work, TwoRanks()) == 0
    assert launch(work, TwoRanks(answers=[{"lfw": 4}])) == 2
    assert capsys.readouterr().err == (
        "error: verification sets.lfw: must be equal on all ranks, got 3 on rank 0 and 4 on rank "
        "1; use the same files and the same command on every host\n"
    )


def test_a_rank_without_a_connection_does_no_work(launch, capsys, monkeypatch):
    monkeypatch.setenv("HOROVOD_LOCAL_RANK", "0")
    found = []
    assert launch(found.append, NoConnection("host a: no route, got none; repair it")) == 2
    assert capsys.readouterr().err == "error: host a: no route, got none; repair it\n"
    assert found == []
