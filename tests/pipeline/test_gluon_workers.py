# SPDX-License-Identifier: Apache-2.0
"""Watch over the worker processes of a Gluon DataLoader: every wait ends with one message."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import namedtuple
from types import SimpleNamespace

import pytest

from pipeline import build_loader, gluon_workers
from pipeline.gluon_workers import Result, Watch, WorkerError, check_shared_memory
from pipeline.records import open_records
from tests.pipeline.test_gluon_loader import run_program

Usage = namedtuple("Usage", "total used free")

# The first batches are taken, so that the workers wait for work or make batches when one is killed.
KILLED = """
import multiprocessing, os, sys
from itertools import islice
from pipeline import build_loader
from pipeline.records import open_records

rec, folder, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
loader = build_loader("cpu", open_records(rec, folder), 16, workers=2)
list(islice(loader, 2))
os.kill(multiprocessing.active_children()[0].pid, number)
try:
    for batch in loader:
        pass
except ValueError as error:
    print(error)
loader.close()
print(len(multiprocessing.active_children()), "workers remain")
"""


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, "data.workers: a worker process was killed, got signal 9 (SIGKILL); if "),
        (signal.SIGBUS, "data.workers: a worker process had no memory for a batch of 3 MiB, got "),
    ],
)
def test_a_killed_worker_ends_the_loader_with_a_message(number, message, make_records, tmp_path):
    rec = make_records(13, 10)
    done = run_program(KILLED, rec, tmp_path, int(number))
    assert (done.returncode, done.stderr) == (0, "")
    error, remaining = done.stdout.splitlines()
    assert error.startswith(message)
    assert remaining == "0 workers remain"


def test_a_small_shared_memory_is_refused_before_the_workers_start(
    make_records, tmp_path, monkeypatch
):
    records = open_records(make_records(13, 10), tmp_path)
    monkeypatch.setattr(gluon_workers.shutil, "disk_usage", lambda path: Usage(8, 8, 2**22))
    with pytest.raises(WorkerError) as error:
        build_loader("cpu", records, 16, workers=2)
    assert str(error.value) == (
        "data.workers: 2 worker processes need 10 MiB in /dev/shm for their batches, got 4 MiB "
        "free; enlarge /dev/shm (docker run --shm-size=8g), use fewer data.workers or a smaller "
        "data.batch_size, or use data.workers=0"
    )
    assert multiprocessing.active_children() == []


def test_no_worker_needs_no_shared_memory(monkeypatch):
    monkeypatch.setattr(gluon_workers.shutil, "disk_usage", lambda path: Usage(0, 0, 0))
    check_shared_memory(0, 2**30)


def test_a_batch_that_never_arrives_ends_the_wait(monkeypatch):
    monkeypatch.setattr(gluon_workers, "BATCH_TIMEOUT_S", 0.0)
    never = SimpleNamespace(ready=lambda: False, wait=lambda seconds: None)
    pool = SimpleNamespace(_pool=[SimpleNamespace(exitcode=None)], apply_async=lambda: never)
    watch = Watch(pool, 1)
    with pytest.raises(WorkerError, match="no batch arrived from the worker processes for 0 s; "):
        Result(never, watch).get()


def test_a_worker_that_exits_is_reported():
    pool = SimpleNamespace(_pool=[SimpleNamespace(exitcode=3)], apply_async=None)
    with pytest.raises(WorkerError, match="a worker process has ended, got exit code 3; "):
        Watch(pool, 1).check()


def watching(*workers):
    return Watch(SimpleNamespace(_pool=list(workers), apply_async=None), 3 * 2**20 + 1)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (
            [-9],
            "a worker process was killed, got signal 9 (SIGKILL); if memory ran out (see dmesg)",
        ),
        ([-40], "a worker process was killed, got signal 40; if memory ran out (see dmesg), use "),
        ([-9, None, 3], "a worker process has ended, got exit code 3; enlarge /dev/shm"),
        (
            [-9, -7],
            "a worker process had no memory for a batch of 4 MiB, got signal 7 (SIGBUS) and 5 MiB "
            "free in /dev/shm; enlarge /dev/shm",
        ),
    ],
)
def test_the_exit_code_that_says_most_is_reported(monkeypatch, codes, message):
    monkeypatch.setattr(gluon_workers.shutil, "disk_usage", lambda path: Usage(8, 8, 5 * 2**20))
    with pytest.raises(WorkerError) as error:
        watching(*[SimpleNamespace(exitcode=code) for code in codes]).check()
    assert str(error.value).startswith(f"data.workers: {message}")


class ClosedConnection:
    """Iterator over batches whose second batch is in the memory of a worker that is gone."""

    def __init__(self):
        self.batches = iter(["first"])

    def __next__(self):
        for batch in self.batches:
            return batch
        raise EOFError("no answer")


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [(-9, WorkerError, "was killed, got signal 9"), (None, EOFError, "no answer")],
)
def test_a_batch_of_a_worker_that_does_not_answer_is_an_error(monkeypatch, code, error, message):
    monkeypatch.setattr(gluon_workers, "EXIT_TIMEOUT_S", 0.0)
    reading, writing = os.pipe()
    batches = watching(SimpleNamespace(exitcode=code, sentinel=reading)).batches(ClosedConnection())
    assert next(batches) == "first"
    with pytest.raises(error, match=message):
        next(batches)
    os.close(reading)
    os.close(writing)


def test_the_batches_end_with_those_of_the_dataloader():
    worker = SimpleNamespace(exitcode=None)
    assert list(watching(worker).batches(iter("abc"))) == ["a", "b", "c"]


def test_no_worker_remains_after_one_was_killed():
    before = set(multiprocessing.active_children())
    pool = multiprocessing.get_context("spawn").Pool(2)
    workers = [child for child in multiprocessing.active_children() if child not in before]
    watch = Watch(pool, 1)
    watch.apply_async(time.sleep, (600,))
    os.kill(workers[0].pid, signal.SIGKILL)
    workers[0].join()
    watch.terminate()
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL] * 2
