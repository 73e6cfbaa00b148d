# SPDX-License-Identifier: Apache-2.0
"""Two ranks with one decoded cache: the losses of two without, and nothing left in memory."""

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
    held,
    hold,
    read_losses,
    resumed_at,
    run,
    training,
    write_cfg,
)

pytestmark = pytest.mark.parallel
STEPS = 20
# run_train.py with caches in a folder of its own: every run of this user clears the host's.
ELSEWHERE = """
import sys
from functools import partial
from pathlib import Path
import run_train
from assemble import loader
from tests.parallel import held
held.install()
folder = Path(__file__).parent / "memory"
loader.DecodedCache = partial(loader.DecodedCache, folder=folder)
loader.remove_stale_caches = partial(loader.remove_stale_caches, folder=folder)
sys.exit(run_train.main(sys.argv[1:]))
"""


def caches(folder: Path) -> set[Path]:
    return set(folder.glob(f"{PREFIX}{os.getuid()}-*"))


@pytest.fixture
def elsewhere(tmp_path):
    """Return the folder of caches, and a function that puts a program of its own before ``--cfg``.

    The folder begins with what a run of another set has left.
    """
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / f"{PREFIX}{os.getuid()}-another").write_bytes(bytes(3 << 20))
    program = tmp_path / "train_elsewhere.py"
    program.write_text(ELSEWHERE)
    return memory, lambda cfg, *overrides: [program, *training(cfg, *overrides)[1:]]


@pytest.fixture(scope="module")
def undisturbed(tiny_records, tmp_path_factory):
    """Return the losses of two ranks without a cache, and the sections of their configuration."""
    folder = tmp_path_factory.mktemp("undisturbed")
    sections = {
        "train": {"max_steps": STEPS, "checkpoint_every": 4},
        "data": {"batch_size": 8},
    }
    ended = run(2, training(write_cfg(folder, tiny_records, **sections)))
    assert ended.code == 0, ended.everything
    return read_losses(folder / "runs" / "tiny-001"), sections


def test_two_ranks_share_what_is_decoded(tiny_records, undisturbed, tmp_path):
    losses, sections = undisturbed
    cfg = write_cfg(tmp_path, tiny_records, **sections)
    cache = FOLDER / _name(open_records(tiny_records, tiny_records))  # of nobody else on this host
    folder = tmp_path / "runs" / "tiny-001"
    with Ranks(2, held(cfg, "data.decoded_cache_mib=5"), hold(1)) as started:
        started.until(lambda: read_losses(folder))
        assert cache.exists()
        started.go_on()
        ended = started.wait()
    assert ended.code == 0, ended.everything
    assert not cache.exists()
    assert read_losses(folder) == losses and len(losses) == STEPS


@pytest.mark.parametrize(
    ("victims", "mib"),
    [("one", 5), ("all", 5), ("all", 0)],
    ids=["one, then with a cache", "all, then with a cache", "all, then without"],
)
def test_after_a_kill_the_next_run_uses_the_memory_or_frees_it(
    victims, mib, tiny_records, undisturbed, elsewhere, tmp_path
):
    losses, sections = undisturbed
    memory, program = elsewhere
    cfg = write_cfg(tmp_path, tiny_records, **sections)
    folder = tmp_path / "runs" / "tiny-001"
    with Ranks(2, program(cfg, "data.decoded_cache_mib=5"), hold(5)) as started:
        started.until(lambda: max(read_losses(folder), default=0) >= 5)
        (left,) = caches(memory)
        inode = left.stat().st_ino
        # Stopped before: whoever sees another one die leaves well, and removes the memory.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in list(started.pids().values())[: 1 if victims == "one" else 2]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        if victims == "all":
            started.kill_all()
            assert caches(memory) == {left}
        else:
            ended = started.wait()
            assert ended.code != 0, ended.everything
            assert "removed 3 MiB of decoded images" in ended.stdout
    if caches(memory):
        assert is_right(left, tiny_records) > 16

    found = caches(memory)  # of one that was killed, the other may have removed it
    with Ranks(2, program(cfg, f"data.decoded_cache_mib={mib}"), hold(6)) as again:
        again.until(lambda: max(read_losses(folder), default=0) >= 10)
        now = {path: path.stat().st_ino for path in caches(memory)}
        again.go_on()
        ended = again.wait()
    assert ended.code == 0, ended.everything
    assert resumed_at(ended) == 4
    if mib:
        assert set(now) == {left} and (not found or now[left] == inode)
    else:
        assert not now
        assert ended.stdout.count("removed 5 MiB of decoded images") == len(found)
    assert caches(memory) == set()
    assert read_losses(folder) == pytest.approx(losses, abs=1e-5)


def test_two_ranks_refuse_a_set_that_does_not_fit(tiny_records, elsewhere, tmp_path):
    memory, program = elsewhere
    cfg = write_cfg(tmp_path, tiny_records, data={"batch_size": 8})
    ended = run(2, program(cfg, "data.decoded_cache_mib=1"))
    assert ended.code != 0
    assert (
        f"data.decoded_cache_mib: the images of {tiny_records / 'train.rec'} need 5 MiB decoded, "
        "got 1; raise it, or set it to 0"
    ) in ended.said, ended.everything
    assert "Traceback" not in ended.stderr
    assert ended.stdout.count("removed 3 MiB of decoded images of killed runs") == 1
    assert caches(memory) == set()


def is_right(path: Path, folder: Path) -> int:
    """Compare the pictures in a cache with the set's own; return how many are there."""
    records = open_records(folder, folder)
    content = np.fromfile(path, dtype=np.uint8)
    pictures, there = np.split(content, [-len(records)])
    rows = np.flatnonzero(there)
    for row, jpeg in zip(rows, RecordReader(records).read(rows), strict=True):
        expected = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[:, :, ::-1]
        assert (pictures.reshape(len(records), *expected.shape)[row] == expected).all()
    return len(rows)
