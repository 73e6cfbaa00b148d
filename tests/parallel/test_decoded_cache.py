# SPDX-License-Identifier: Apache-2.0
"""Decoded cache shared by two ranks: the same losses as without it, and no memory left behind."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.decode.cache import FOLDER, PREFIX, _name
from pipeline.records.open import open_records
from pipeline.records.reader import RecordReader
from tests.parallel.ranks import (
    Ranks,
    pausable,
    pause_at,
    read_losses,
    resumed_at,
    run,
    training,
    write_cfg,
)

pytestmark = pytest.mark.parallel
STEPS = 20
# run_train.py with its own cache folder, because every run of this user clears the default folder.
TRAIN_WITH_OWN_FOLDER = """
import sys
from functools import partial
from pathlib import Path
import run_train
from assemble import loader
from tests.parallel import pausable
pausable.install()
folder = Path(__file__).parent / "memory"
loader.DecodedCache = partial(loader.DecodedCache, folder=folder)
loader.remove_stale_caches = partial(loader.remove_stale_caches, folder=folder)
sys.exit(run_train.main(sys.argv[1:]))
"""


def caches(folder: Path) -> set[Path]:
    return set(folder.glob(f"{PREFIX}{os.getuid()}-*"))


@pytest.fixture
def own_folder(tmp_path):
    """Return a new cache folder and a function that builds a training program with that folder.

    The folder contains the cache of a killed run on another record set.
    """
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / f"{PREFIX}{os.getuid()}-another").write_bytes(bytes(3 << 20))
    program = tmp_path / "train_own_folder.py"
    program.write_text(TRAIN_WITH_OWN_FOLDER)
    return memory, lambda cfg, *overrides: [program, *training(cfg, *overrides)[1:]]


@pytest.fixture(scope="module")
def undisturbed(tiny_records, tmp_path_factory):
    """Return the losses of two ranks without a cache, and their configuration."""
    folder = tmp_path_factory.mktemp("undisturbed")
    sections = {
        "train": {"max_steps": STEPS, "checkpoint_every": 4},
        "data": {"batch_size": 8},
    }
    ended = run(2, training(write_cfg(folder, tiny_records, **sections)))
    assert ended.code == 0, ended.everything
    return read_losses(folder / "runs" / "tiny-001"), sections


def test_two_ranks_share_one_cache_and_remove_it(tiny_records, undisturbed, tmp_path):
    losses, sections = undisturbed
    cfg = write_cfg(tmp_path, tiny_records, **sections)
    cache = FOLDER / _name(
        open_records(tiny_records, tiny_records)
    )  # this test process has its own folder
    folder = tmp_path / "runs" / "tiny-001"
    with Ranks(2, pausable(cfg, "data.decoded_cache_mib=5"), pause_at(1)) as started:
        started.until(lambda: read_losses(folder))
        assert cache.exists()
        started.unpause()
        ended = started.wait()
    assert ended.code == 0, ended.everything
    assert not cache.exists()
    assert read_losses(folder) == losses and len(losses) == STEPS


def test_the_next_run_reuses_or_replaces_the_cache_of_a_killed_run(
    tiny_records, undisturbed, own_folder, tmp_path
):
    losses, sections = undisturbed
    memory, program = own_folder
    cfg = write_cfg(tmp_path, tiny_records, **sections)
    folder = tmp_path / "runs" / "tiny-001"
    with Ranks(2, program(cfg, "data.decoded_cache_mib=5"), pause_at(5)) as started:
        started.until(lambda: max(read_losses(folder), default=0) >= 5)
        (left,) = caches(memory)
        inode = left.stat().st_ino
        # SIGSTOP first: a rank that notices the death of another exits cleanly and removes the
        # cache.
        victim = next(iter(started.pids().values()))
        for number in (signal.SIGSTOP, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, number)
        ended = started.wait()
        assert ended.code != 0, ended.everything
        assert "removed 3 MiB of decoded images" in ended.stdout
    if caches(memory):
        assert count_correct(left, tiny_records) > 16

    found = caches(memory)  # empty if the surviving rank removed it
    with Ranks(2, program(cfg, "data.decoded_cache_mib=5"), pause_at(6)) as again:
        again.until(lambda: max(read_losses(folder), default=0) >= 10)
        now = {path: path.stat().st_ino for path in caches(memory)}
        again.unpause()
        ended = again.wait()
    assert ended.code == 0, ended.everything
    assert resumed_at(ended) == 4
    assert set(now) == {left} and (not found or now[left] == inode)
    assert caches(memory) == set()
    assert read_losses(folder) == pytest.approx(losses, abs=1e-5)


def test_two_ranks_refuse_a_record_set_larger_than_the_cache(tiny_records, own_folder, tmp_path):
    memory, program = own_folder
    cfg = write_cfg(tmp_path, tiny_records, data={"batch_size": 8})
    ended = run(2, program(cfg, "data.decoded_cache_mib=1"))
    assert ended.code != 0
    assert (
        f"data.decoded_cache_mib: the decoded images of {tiny_records / 'train.rec'} need 5 MiB, "
        "got 1; raise the value, or set 0 to run without a cache"
    ) in ended.rank_output, ended.everything
    assert "Traceback" not in ended.stderr
    assert ended.stdout.count("removed 3 MiB of decoded images that killed runs left") == 1
    assert caches(memory) == set()


def count_correct(path: Path, folder: Path) -> int:
    """Compare the images in a cache with those of the record set; return their number."""
    records = open_records(folder, folder)
    content = np.fromfile(path, dtype=np.uint8)
    images, present = np.split(content, [-len(records)])
    rows = np.flatnonzero(present)
    for row, jpeg in zip(rows, RecordReader(records).read(rows), strict=True):
        expected = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[:, :, ::-1]
        assert (images.reshape(len(records), *expected.shape)[row] == expected).all()
    return len(rows)
